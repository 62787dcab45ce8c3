"""What talks to AWS. ``local_aws`` aside, the only package that imports boto3.

- ``base``            the interfaces that everyone else sees; ``failures`` their errors
- ``clients``         boto3 behind them, as the server uses it, with its own identity
- ``connections``     boto3's clients, shared: deadlines, retries; ``authorities`` their CAs
- ``login``           one reading of the AWS configuration and the credential chain
- ``credentials``     the person for whom the proxy signs in, as the proxy sees it
- ``person``          the same, as AWS sees it: three identities, each cached by ``renewal``
- ``session_credentials``  made for apps of the original protocol
- ``signing``         the signed identity; ``identity_check`` has STS verify one
- ``objects``         S3 as an object store
- ``profiles``        which profiles belong to an account
- ``offload``         synchronous calls off an event loop, each with a deadline

Importing ``base``, ``offload``, ``profiles`` or ``renewal`` imports neither boto3 nor botocore.
"""
