"""What an app mounts: the gate, and adapters to aiohttp, ASGI and WSGI.

``gate`` decides and knows no framework; ``aiohttp``, ``asgi`` and ``wsgi`` tell it of requests and
carry its answers. It leans on ``front`` (what the browser calls the app, behind front ends),
``sessions`` (cookies), ``access`` (who may come in), ``public`` (what needs no one) and ``limits``;
``answers`` and ``pages`` are what people see, and ``settings`` reads the one table of
options, ``table``, with ``readers`` and ``token_readers`` for their grammars.

A sign-in comes through ``signing_in`` to ``bound`` (``POST /auth``) or ``legacy`` (``GET /auth``),
which have ``verifier`` ask KMS and STS about it, for the key and accounts that ``home`` found.
``replay`` and ``replay_file`` remember what was used. ``service`` is for those who come with a
service token instead.
"""

from iam_auth_proxy.server.gate import Gate
from iam_auth_proxy.server.settings import SETTINGS, Settings

__all__ = ["SETTINGS", "Gate", "Settings"]
