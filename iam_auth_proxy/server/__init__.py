"""What an app mounts: the gate, and adapters to aiohttp, ASGI and WSGI.

``gate`` decides and knows no framework: ``facts`` are what it is told of a request and what it
answers. ``aiohttp``, ``asgi`` and ``wsgi`` translate between it and a framework, with ``mount`` for
what they have in common and ``caching`` for which answers a renewed cookie goes along with. It
leans on ``front`` (what the browser calls the app, behind front ends), ``sessions`` (cookies),
``rings`` (waiting for a key ring), ``access`` (who may come in), ``public`` (paths that need no
sign-in), ``handshake`` (which pages may open a WebSocket) and ``limits`` (how often sign-ins are
tried). ``answers``, ``refusals`` and ``pages`` are what visitors get.

A sign-in comes through ``signing_in`` to ``bound`` (``POST /auth``) or ``legacy`` (``GET /auth``).
Both have ``verifier`` ask KMS and STS, with the encryption contexts of ``contexts`` and for the key
and accounts that ``home`` found; ``own`` tells AWS being away from a fault of the app itself.
``replay`` and ``replay_file`` remember what was used. ``service`` is for those who come with a
service token instead.

``settings`` reads the one table of options, ``table``, with ``readers`` and ``token_readers`` for
their grammars; ``announce`` tells the operator what they leave open. ``factory`` makes the AWS
clients, and is the only module here that reaches boto3.
"""

from iam_auth_proxy.server.gate import Gate
from iam_auth_proxy.server.settings import SETTINGS, Settings

__all__ = ["SETTINGS", "Gate", "Settings"]
