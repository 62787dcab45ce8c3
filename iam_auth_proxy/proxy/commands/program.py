"""``iam-auth-proxy exec``: a private proxy for one command.

It listens on a port of its own, with a password that is in the command's environment and nowhere
else, and ends when the command does. Sessions are held for all that comes in by it, so that
programs without a cookie jar stay signed in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final, TextIO

from iam_auth_proxy.config import HTTPS, Settings
from iam_auth_proxy.errors import IamAuthError, MfaNeeded
from iam_auth_proxy.proxy.commands import children, noproxy
from iam_auth_proxy.proxy.process import logs, rlimits
from iam_auth_proxy.proxy.process.build import Parts
from iam_auth_proxy.proxy.process.running import loop_factory, running, warn
from iam_auth_proxy.proxy.process.serve import open_private
from iam_auth_proxy.proxy.signin.prover import AWS_DEADLINE, AskMfa

log = logging.getLogger(__name__)

VARIABLES: Final = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY")
"""What programs look for; ``all_proxy``, which counts after these, stays as it is. curl reads
``http_proxy`` in lower case alone, others upper case."""


def run(
    settings: Settings,
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    out: TextIO,
    ask_mfa: AskMfa | None,
) -> int:
    """Runs the command to its end.

    :param out: for the log, which says less than a daemon's: the terminal is the command's.
    :param ask_mfa: asks for a code before the command starts; afterwards nobody is asked.
    :returns: the command's status; 128 + n where signal n ended it.
    :raises CannotRun: the command cannot be started.
    :raises ConfigError: the configuration names what cannot be used.
    :raises IamAuthError: an MFA code was not accepted.
    """
    level = settings.log_level if "log-level" in settings.chosen else "warning"
    logs.configure(level, settings.log_format, out, out.isatty())
    warn(settings)
    before = rlimits.set_own()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_run(settings, command, environ, ask_mfa, before))


async def _run(
    settings: Settings,
    command: Sequence[str],
    environ: Mapping[str, str],
    ask_mfa: AskMfa | None,
    before: rlimits.Before,
) -> int:
    async with running(settings, environ, [], None) as parts:
        if ask_mfa is not None and settings.mfa_serial_number:
            await _begin_mfa(parts, ask_mfa)
        listener = await open_private(parts)
        try:
            trusting = await asyncio.to_thread(_trusting, parts, environ)
            past = _past(parts, settings, environ)
            theirs = {**environ, **dict.fromkeys(VARIABLES, listener.url), **past, **trusting}
            return await children.run(command, theirs, before)
        finally:
            await listener.close()


def _past(parts: Parts, settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """What the command asks for without the proxy."""
    rules = parts.signins.trust.rules
    aliases = any(rule.alias_name for rule in rules)
    hosts = [rule.host for rule in rules]
    return noproxy.exports(environ, hosts, settings.allow_targets, aliases=aliases)


def _trusting(parts: Parts, environ: Mapping[str, str]) -> dict[str, str]:
    """What makes the command trust the local CA, where an app's TLS is ended here."""
    if not any(rule.https == HTTPS[1] for rule in parts.signins.trust.rules):
        return {}
    from iam_auth_proxy.proxy.https import bundle, ca

    authorities = ca.Authorities(ca.default_folder())
    try:
        return bundle.exports(bundle.of(authorities, environ)) if authorities.domains() else {}
    except IamAuthError as error:
        log.warning("the command will not trust the local CA: %s. %s", error, error.remedy)
        return {}


async def _begin_mfa(parts: Parts, ask: AskMfa) -> None:
    """While the terminal is ours: the command may want to read from it."""
    try:
        await parts.caller(AWS_DEADLINE)
    except MfaNeeded as needed:
        await parts.enter_mfa(await ask(needed.serial), AWS_DEADLINE)
