"""iam-auth-proxy: sign in to internal web apps with the AWS identity you already have.

The steps of a sign-in (numbers as in the README's picture) and where each of them lives::

     1   browser -> proxy    GET /private                       relay/client.py
     2   proxy -> app        the same request                   relay/origin.py
     3   app -> proxy        401 and a challenge                server/gate.py, protocol/challenge
     4-5 proxy <-> STS       session credentials                aws/credentials.py
     6-7 proxy <-> KMS       sealed for the app's key           aws/clients.py, protocol/proof.py
     8   proxy -> browser    302 to /auth with a ticket         proxy/signin.py
     9   browser -> proxy    GET /auth with the ticket          proxy/signin.py
    10   proxy -> app        GET /auth with the token           protocol/handoff.py
    11-12 app <-> KMS        the proof is opened                server/gate.py, aws/clients.py
    13-14 app <-> STS        whose is it?                       server/gate.py, protocol/identity.py
    15-16 app -> browser     302 back and a session cookie      server/gate.py, protocol/session.py
    17-20 the first request again, now with the cookie

``protocol/`` says what goes over the wire and can do no I/O; ``aws/`` is the only room with boto3;
``relay/`` moves bytes and knows nothing of IAM; ``proxy/`` and ``server/`` are the two ends and
share only what lies below both. Imports go one way; pyproject.toml holds the contracts.
"""

__version__ = "0.1.0"
