"""What touches AWS. The only room of the product that imports boto3.

``base`` holds the interfaces that everyone else sees; ``clients`` puts boto3 behind them;
``credentials`` knows whose credentials are used; ``offload`` runs the synchronous calls off an
event loop with a deadline. Importing ``base`` or ``offload`` does not import boto3.
"""
