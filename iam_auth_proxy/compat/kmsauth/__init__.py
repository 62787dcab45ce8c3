"""kmsauth's names: ``import iam_auth_proxy.compat.kmsauth as kmsauth``.

Signatures, defaults and messages are those of python-kmsauth 0.6.3, and so are the tokens, both
ways. Different is, and docs/compat.md says why:

- **lifetimes** of a day and more are counted, and clocks may be 30 seconds apart;
- **usernames** have one spelling each (``2/user/NAME``, and for services ``NAME`` or
  ``1/service/NAME``); what is none is a ``TokenValidationError``; names are IAM's;
- **tokens** have one spelling each, too: standard base64;
- **what is remembered** of a token is kept for five minutes at most, by all of its username, and is
  the caller's own to change; a bad one is remembered for 20 seconds; keys are looked up again;
- **KMS** is told which key to open with, and AWS not answering is not a bad token;
- **keys** may be ARNs, aliases, their ARNs and ids in all partitions; ``scoped_auth_keys`` need no
  ``auth_key`` besides, and name their account whatever else the key is called;
- **generators** refuse a version or a name that no validator takes; short-lived tokens are alive;
  the cache file is private, whole, and for one key, region, context, version and lifetime;
  ``get_token()`` always gives bytes;
- **logging** is this package's own, never the root logger's;
- **clients** of boto3 are shared by nobody who asked for other credentials or timeouts.

``minimum_token_version`` stays 1, and version 1 stays accepted under a key that is for users, too,
as the original's own tests ask for. The native API, which is stricter in both, is
:class:`iam_auth_proxy.tokens.verifier.Verifier` and
:func:`iam_auth_proxy.tokens.build.open_issuer`.
"""

from __future__ import annotations

from iam_auth_proxy.compat.kmsauth import services
from iam_auth_proxy.compat.kmsauth.client import ensure_bytes, ensure_text
from iam_auth_proxy.compat.kmsauth.errors import (
    ConfigurationError,
    ServiceConnectionError,
    TokenGenerationError,
    TokenValidationError,
)
from iam_auth_proxy.compat.kmsauth.generator import TIME_FORMAT, TOKEN_SKEW, KMSTokenGenerator
from iam_auth_proxy.compat.kmsauth.utils.lru import LRUCache as LRU
from iam_auth_proxy.compat.kmsauth.validator import KMSTokenValidator

__all__ = [
    "LRU",
    "TIME_FORMAT",
    "TOKEN_SKEW",
    "ConfigurationError",
    "KMSTokenGenerator",
    "KMSTokenValidator",
    "ServiceConnectionError",
    "TokenGenerationError",
    "TokenValidationError",
    "ensure_bytes",
    "ensure_text",
    "services",
]
