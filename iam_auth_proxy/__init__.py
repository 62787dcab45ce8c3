"""iam-auth-proxy: sign in to internal web apps with the AWS identity you already have.

The steps of a sign-in (numbers as in the README's picture) and where each of them lives::

     1   browser -> proxy    GET /private                    relay/client.py
     2   proxy -> app        the same request                relay/origin.py
     3   app -> proxy        401 and a challenge             server/gate.py, protocol/challenge
     -   proxy               may it speak, and to whom?      proxy/decisions/decide.py and trust
     4-5 proxy               the proof: a signed identity,   protocol/signed_identity
         proxy <-> STS       or session credentials          aws/person.py, protocol/proof
     6-7 proxy <-> KMS       sealed for the app's key        proxy/signin/sealing, protocol/envelope
     8   proxy -> browser    302 to /auth with a ticket      proxy/signin/signins.py
     9   browser -> proxy    GET /auth with the ticket       proxy/signin/signins.py
    10   proxy -> app        POST /auth with the proof       proxy/signin/handover, protocol/handoff
    11-12 app <-> KMS        the proof is opened             server/bound.py, protocol/envelope
    13-14 app <-> STS        whose is it?                    aws/identity_check.py
    15-16 app -> browser     303 back and a session cookie   server/signing_in.py
    17-20 the first request again, now with the cookie

Programs, and a page's own requests, skip 8, 9 and 16: the proxy hands over by itself and sends the
first request again (proxy/steering.py). "The original" is the Go program of this name, whose
protocol and flags still work (README, "Coming from the Go proxy"); in its protocol step 10 is a GET
with a token in its query, and 15 a 302 (server/legacy.py).

What else there is; each package's own docstring names all of its modules:

- ``protocol`` says what goes over the wire and can do no I/O; ``names`` are the names in it, and
  ``errors`` the one tree of errors
- ``relay`` moves bytes and knows nothing of IAM
- ``proxy`` and ``server`` are the two ends, and share only what lies below both
- ``aws`` talks to AWS; ``local_aws`` is an AWS in one process, for tests and the ``demo``
- ``config`` reads the options of the proxy, and ``cli`` is the command line
- ``tokens``: service tokens (kmsauth). ``keys``: secrets and key rings, sealed with KMS
- ``policies`` writes IAM and KMS policies, ``files`` replaces files as a whole
- ``compat`` has the interfaces of kmsauth, lazycred and keys-management
- ``testing`` is for the tests of apps that mount the gate

Imports go one way; pyproject.toml holds the contracts.
"""

__version__ = "0.1.0"
