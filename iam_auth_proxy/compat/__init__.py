"""The interfaces of kmsauth, lazycred and keys-management, for apps that move over line by line.

Thin layers over the rest of the package; docs/compat.md says what is different.
"""
