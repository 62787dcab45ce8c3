"""What is said on the wire. Pure: no I/O, no clock, no randomness except what is passed in.

One module for each thing that is said, its parser and its writer side by side: ``parse(write(x)) ==
x``.

- ``challenge``  the 401's headers                     (step 3)
- ``nonce``      of a bound challenge, and its cookie  (steps 3, 10)
- ``proof``      what proves an identity               (steps 5, 6, 12)
- ``signed_identity``  the request that is signed, and rebuilt  (steps 5, 13)
- ``envelope``   a bound proof, sealed                 (steps 6, 7, 11, 12)
- ``handoff``    the /auth request and return_url      (steps 8 to 10)
- ``identity``   what STS says of the caller           (step 14)
- ``session``    the cookie                            (steps 15 to 18)
- ``cookies``    how our cookies are named and read
- ``caching``    Cache-Control of an answer that carries one
- ``service_token``  tokens of kmsauth, in place of a sign-in
- ``keyring``    which key signs and which verify
- ``lifecycle``, ``stored_ring``, ``ring_record``  the versions of a ring: their times, how they
  change, and the JSON they are stored as
- ``salt``       the encryption context that rotates by the clock
- ``record``     a stored secret
- ``accept``     in which form a client wants a page of ours
- ``strict``     base64 and JSON, each value accepted in one spelling only

Both ends run the vectors in ``tests/vectors``. Anything outside a grammar raises
:class:`~iam_auth_proxy.errors.Malformed` or the refusal named in the docstring.
"""
