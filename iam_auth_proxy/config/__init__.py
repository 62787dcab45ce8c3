"""Configuration: one table of options, of which flags, environment and files are three spellings.

Order: flag > ``IAM_AUTH_PROXY_<FLAG>`` > the user's ``config.toml`` > ``/etc/iam-auth-proxy``.
Every problem is reported at once, each with its place (flag, variable, or file:line). Reading
configuration does nothing else: no default is set, no file written, no process ended.
"""

from iam_auth_proxy.config.load import SYSTEM_FILE, Settings, load, user_file
from iam_auth_proxy.config.options import ENV_PREFIX, OPTIONS, SEED_GROUP, Option
from iam_auth_proxy.config.values import (
    Bind,
    TrustRule,
    parse_bind,
    parse_duration,
    parse_trust,
)

__all__ = [
    "ENV_PREFIX",
    "OPTIONS",
    "SEED_GROUP",
    "SYSTEM_FILE",
    "Bind",
    "Option",
    "Settings",
    "TrustRule",
    "load",
    "parse_bind",
    "parse_duration",
    "parse_trust",
    "user_file",
]
