"""Configuration: one table of options, of which flags, environment and files are three spellings.

Order: flag > ``IAM_AUTH_PROXY_<FLAG>`` > the user's ``config.toml`` > ``/etc/iam-auth-proxy``. Whom
to trust is the other way round: what the operator wrote for an origin comes before the person's own
word, key by key (:func:`iam_auth_proxy.proxy.decisions.rules.merge`). Every problem is reported at
once, each with its place (flag, variable, or file:line). Reading configuration does nothing else:
no default is set, no file written, no process ended.

``options`` is the table, ``sources`` reads flags, environment and files into one shape, and
``load`` makes the settings of them. ``values`` has the grammars of single values, ``apps`` that of
``[[app]]`` and ``[via.NAME]``, with ``service_token``, ``client_certificate`` and ``domains`` for
keys of their own. ``toml`` writes TOML.
"""

from iam_auth_proxy.config.apps import (
    APP_KEYS,
    ViaSettings,
    check_aliases,
    read_app,
    read_apps,
)
from iam_auth_proxy.config.domains import parse_domain
from iam_auth_proxy.config.load import SYSTEM_FILE, Settings, load, trust_files, user_file
from iam_auth_proxy.config.options import ENV_PREFIX, OPTIONS, ORIGINAL_GROUP, Option
from iam_auth_proxy.config.service_token import TYPES as TOKEN_TYPES
from iam_auth_proxy.config.service_token import unread
from iam_auth_proxy.config.sources import App, Document, read_toml
from iam_auth_proxy.config.values import (
    DIRECT,
    HTTPS,
    PROOFS,
    SOURCES,
    Bind,
    ServiceTokenRule,
    TrustRule,
    parse_bind,
    parse_duration,
    parse_trust,
)

__all__ = [
    "APP_KEYS",
    "DIRECT",
    "ENV_PREFIX",
    "HTTPS",
    "OPTIONS",
    "ORIGINAL_GROUP",
    "PROOFS",
    "SOURCES",
    "SYSTEM_FILE",
    "TOKEN_TYPES",
    "App",
    "Bind",
    "Document",
    "Option",
    "ServiceTokenRule",
    "Settings",
    "TrustRule",
    "ViaSettings",
    "check_aliases",
    "load",
    "parse_bind",
    "parse_domain",
    "parse_duration",
    "parse_trust",
    "read_app",
    "read_apps",
    "read_toml",
    "trust_files",
    "unread",
    "user_file",
]
