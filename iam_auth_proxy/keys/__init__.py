"""Where secrets live: sealed records in S3 or a local folder, opened with KMS.

- ``secrets``     the store: put, get, delete, rewrap, and all of ``listing``
- ``listing``     what a store holds, unopened: list, history; no key is needed
- ``drafts``      a record before it is written, and after it was read
- ``wrapping``    KMS around data keys: which key seals, and which may have sealed
- ``objects``     how secrets lie in an object store
- ``folder``      a local folder as an object store (S3 is ``aws.objects``)
- ``lazycred``, ``lazystore``, ``lazyconfig``  the records and the configuration of lazycred
- ``ringstore``   key rings in it, changed by compare-and-swap
- ``live``        a ring under a running server: read again and again, the last good one kept
- ``rotation``    a ring by its name: ``s3://bucket/prefix/NAME``, ``file:/folder/NAME``
- ``build``       a store by its name: ``s3://bucket/prefix``, or a folder

What a record is, to the byte, is :mod:`iam_auth_proxy.protocol.record`.
"""
