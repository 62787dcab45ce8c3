"""Where secrets live: sealed records in S3 or a local folder, opened with KMS.

- ``secrets``   the store: put, get, list, history, delete, rewrap
- ``drafts``    a record before it is written, and after it was read
- ``lazycred``  the records and the configuration of lazycred
- ``folder``    objects in a local folder
- ``build``     a store by its name: ``s3://bucket/prefix``, or a folder

What a record is, to the byte, is :mod:`iam_auth_proxy.protocol.record`.
"""
