"""``keyring new|set|list|rotate|disable|import``: the keys that an app signs its sessions with.

Key material is neither printed nor taken from an argument: it is made here, or read from a
variable, and goes sealed into the store.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from iam_auth_proxy import config
from iam_auth_proxy.cli.durations import instant, length, seconds
from iam_auth_proxy.cli.layout import EVERYWHERE, PROGRAM, Command, Flag, Group, Misused
from iam_auth_proxy.cli.loading import loading
from iam_auth_proxy.cli.settings import config_flag, flag, json_flag, loader
from iam_auth_proxy.errors import ConfigError, Malformed, Problem

if TYPE_CHECKING:
    from iam_auth_proxy.keys.rotation import RingStore, Stored
    from iam_auth_proxy.protocol.lifecycle import Version

_OPTIONS: Final = {option.name: option for option in config.OPTIONS}
_WHO: Final = ("profile", "region")
# Of the policy: its member, and what the flag says.
_POLICY: Final = {
    "--rotate-every": ("rotate_every", "30d", "How long each version signs."),
    "--max-session": ("max_session", "12h", "The longest session of the apps that use it."),
    "--poll": ("poll", "30s", "How often the apps look for a change."),
    "--clock-skew": ("skew", "60s", "By how much any two clocks may differ."),
    "--read-time": ("read", "10s", "How long it may take to read or write it."),
    "--outage": ("outage", "1h", "How long the store may be down, and nobody is refused."),
}

# Of a secret that is weak: it is what it is, so a better one is no help here.
_WITHOUT: Final = "Import nothing of it, and everybody signs in once more"


@click.group(
    "keyring", cls=Group, short_help="Keep the keys that apps sign sessions with, and rotate them."
)
def keyring_commands() -> None:
    """Keep the keys that an app signs its sessions with, and rotate them.

    \b
    PLACE is s3://BUCKET/PREFIX/NAME or file:/FOLDER/NAME, as in IAM_AUTH_KEYRING.
    """


def _flags() -> list[click.Parameter]:
    prefix = config.ENV_PREFIX
    return [
        Flag(
            ["--kms-key", "keys"],
            metavar="KEY",
            multiple=True,
            envvar=f"{prefix}KMS_KEY",
            help="KMS key that seals the ring, in any spelling; further ones may open it, too "
            f"(or {prefix}KMS_KEY).",
        ),
        Flag(
            ["--store-name"],
            metavar="NAME",
            envvar=f"{prefix}STORE_NAME",
            help="What the store is called in its records, where it was moved.",
        ),
        *(flag(_OPTIONS[name]) for name in _WHO),
        Flag(["--quiet"], is_flag=True, group=EVERYWHERE, help="Say nothing but errors."),
        config_flag(),
    ]


Decorator = Callable[[Callable[..., int]], click.Command]


def _command(name: str, *params: click.Parameter, help: str) -> Decorator:
    place = click.Argument(["place"], metavar="PLACE")
    return keyring_commands.command(
        name,
        cls=Command,
        params=[place, *params, *_flags()],
        short_help=help,
    )


class _Given:
    """The place and the flags that all of these commands have, out of a command's arguments.

    :ivar place: in the one spelling that means the same everywhere: a folder's path is whole.
    :raises ConfigError: it is none.
    """

    def __init__(self, place: str, given: dict[str, Any]) -> None:
        with loading():
            from iam_auth_proxy.keys.rotation import parse_ring_place

        above, name = parse_ring_place(place)
        self.place = f"{above.name}/{name}"
        self._quiet = bool(given.pop("quiet"))
        self._keys: Sequence[str] = given.pop("keys")
        self._name: str | None = given.pop("store_name")
        self._config_file: str | None = given.pop("config_file")
        self._who = {name: given.pop(name) for name in _WHO}

    def open(self) -> RingStore:
        """The ring.

        :raises Misused: it is not said which key seals it.
        """
        settings = loader(self._who, self._config_file)()
        with loading():
            from iam_auth_proxy.keys import rotation

        if not self._keys:
            raise Misused("it is not said which KMS key seals the ring", "Say: --kms-key ARN")
        return rotation.open_ring(
            self.place,
            self._keys,
            profile=settings.profile,
            region=settings.region,
            name=self._name or "",
        )

    def say(self, text: str) -> None:
        if not self._quiet:
            click.echo(text, err=True)

    def say_if_raced(self, stored: Stored) -> None:
        if stored.raced:
            self.say("Somebody else changed the ring meanwhile; it was read again.")


# -- new -------------------------------------------------------------------------------------------


def _policy_flags(*, with_defaults: bool) -> list[click.Parameter]:
    return [
        Flag(
            [name, member],
            callback=seconds,
            default=default if with_defaults else None,
            metavar="DURATION",
            help=f"{text} [default:\xa0{default}]" if with_defaults else text,
        )
        for name, (member, default, text) in _POLICY.items()
    ]


@contextlib.contextmanager
def _flags_named() -> Iterator[None]:
    """What is wrong with a policy, by the names of the flags."""
    try:
        yield
    except Malformed as error:
        text = str(error)
        for name, (member, _, _) in _POLICY.items():
            text = text.replace(member, name)
        raise Misused(text, f"See: {PROGRAM} keyring new --help") from error


@_command(
    "new",
    *_policy_flags(with_defaults=True),
    help="Make a key ring, whose first version signs at once.",
)
def new_command(place: str, **given: Any) -> int:
    """Make a key ring.

    What follows from the durations is computed: a new version signs once every app is
    sure to know it, and verifies until the last session that it signed is over.
    """
    with loading():
        from iam_auth_proxy.protocol.lifecycle import Policy

    members = {member: given.pop(member) for member, _, _ in _POLICY.values()}
    with _flags_named():
        policy = Policy(**members)
    flags = _Given(place, given)
    stored = flags.open().create(policy, time.time())
    flags.say(f"{flags.place}: {stored.ring.versions[0].id} signs from now on")
    flags.say(f"Apps find it with:  IAM_AUTH_KEYRING={flags.place}")
    flags.say(
        f"For cron, to rotate it every {length(policy.rotate_every)}:  "
        f"{PROGRAM} keyring rotate --if-due --quiet {flags.place} --kms-key KEY"
    )
    return 0


@_command(
    "set",
    *_policy_flags(with_defaults=False),
    help="Change how long sessions may be, and the like.",
)
def set_command(place: str, **given: Any) -> int:
    """Change the durations of a ring; those that are not given stay.

    Before an app gives out longer sessions, its ring has to know of them.
    """
    members = {member: given.pop(member) for member, _, _ in _POLICY.values()}
    wanted = {member: value for member, value in members.items() if value is not None}
    if not wanted:
        raise Misused("it is not said what to change", f"See: {PROGRAM} keyring set --help")
    flags = _Given(place, given)
    with _flags_named():
        stored = flags.open().change_policy(wanted, time.time())
    flags.say_if_raced(stored)
    known = asdict(stored.ring.policy)
    said = (f"{name} {length(known[member])}" for name, (member, _, _) in _POLICY.items())
    flags.say(f"{flags.place}: {', '.join(said)}")
    return 0


# -- list ------------------------------------------------------------------------------------------


@_command("list", json_flag(), help="List the versions and what each of them may do now.")
def list_command(place: str, as_json: bool, **given: Any) -> int:
    """List the versions of a ring, and what each of them may do now. No key is printed.

    \b
      pending       known to the apps, and signs from the time that is shown
      primary       signs, and verifies
      verify-only   verifies what it signed, until the time that is shown
      retired       verifies nothing any more; destroyed: and its key is gone
      disabled      was taken out; what it signed is refused
    """
    flags = _Given(place, given)
    stored, now = flags.open().load(), time.time()
    if as_json:
        click.echo(json.dumps(_facts(flags.place, stored, now), indent=2))
        return 0
    ring = stored.ring
    rows = [("ID", "STATE", "SIGNS FROM", "VERIFIES UNTIL")]
    rows += [
        (each.id, str(ring.state(each, now)), instant(each.activates), instant(_end(each)))
        for each in ring.versions
    ]
    rows += [("(salt)", "accepted", "", instant(each.until)) for each in ring.salts]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())
    due = "is due for rotation since" if ring.due(now) else "the next rotation is on"
    flags.say(f"{flags.place}: {due} {instant(ring.next_rotation)}")
    return 0


def _end(version: Version) -> int | None:
    """When it ceased, or ceases, to verify."""
    return version.retires if version.disabled is None else version.disabled


def _facts(place: str, stored: Stored, now: float) -> dict[str, Any]:
    ring = stored.ring
    times = ("id", "created", "activates", "retires", "destroys", "disabled")
    computed = {"propagation": ring.policy.propagation, "overlap": ring.policy.overlap}
    return {
        "place": place,
        "version": stored.number,
        "policy": asdict(ring.policy) | computed,
        "versions": [
            {name: getattr(each, name) for name in times} | {"state": ring.state(each, now)}
            for each in ring.versions
        ],
        "salts": [{"until": each.until} for each in ring.salts],
        "due": ring.due(now),
        "next_rotation": ring.next_rotation,
    }


# -- rotate, disable -------------------------------------------------------------------------------


@_command(
    "rotate",
    Flag(["--if-due"], is_flag=True, help="Only if it is time: for cron."),
    help="Publish a version, which signs once all know it.",
)
def rotate_command(place: str, if_due: bool, **given: Any) -> int:
    """Publish a new version. It signs once every app is sure to know it.

    Nobody is signed out. Where a version is pending already, nothing is done.
    """
    flags = _Given(place, given)
    now = time.time()
    stored = flags.open().rotate(now, if_due=if_due)
    flags.say_if_raced(stored)
    ring = stored.ring
    pending = ring.pending(now)
    if pending is not None:
        new = f"{pending.id} signs from {instant(pending.activates)} on"
        flags.say(f"{flags.place}: {new if stored.changed else f'a rotation is under way; {new}'}")
        old = ring.primary(now)
        flags.say(f"Until then {old.id} signs, which verifies until {instant(old.retires)}")
    else:
        flags.say(f"{flags.place}: not due before {instant(ring.next_rotation)}")
    return 0


@_command(
    "disable",
    click.Argument(["ids"], nargs=-1, required=True, metavar="ID..."),
    help="Take versions out at once, because others know them.",
)
def disable_command(place: str, ids: tuple[str, ...], **given: Any) -> int:
    """Take versions out at once, because somebody else may know them.

    Everybody who signed in with one of them signs in again. Where it was the primary,
    another version signs at once. If the ring as a whole was read by somebody, name
    every version of it, and put it under another KMS key.
    """
    flags = _Given(place, given)
    now = time.time()
    stored = flags.open().disable(tuple(dict.fromkeys(ids)), now)
    flags.say_if_raced(stored)
    ring = stored.ring
    flags.say(
        f"{flags.place}: disabled, in every app within {length(ring.policy.poll)}. "
        "Who signed in with it signs in again."
    )
    flags.say(f"{ring.primary(now).id} signs from now on")
    return 0


# -- import ----------------------------------------------------------------------------------------


@_command(
    "import",
    Flag(
        ["--from-env", "names"],
        required=True,
        metavar="NAMES",
        help="Variables, divided by commas: SECRET_KEY, KMS_SALT, or the same with IAM_AUTH_; "
        "NAME_FILE is read, too.",
    ),
    Flag(
        ["--moving"],
        callback=seconds,
        default="7d",
        metavar="DURATION",
        help="For how long servers that use them are still about. [default:\xa07d]",
    ),
    help="Accept today's SECRET_KEY and KMS_SALT for a while.",
)
def import_command(place: str, names: str, moving: int, **given: Any) -> int:
    """Accept what was signed with today's values, so that moving over signs nobody out.

    They verify and never sign: until the servers that use them are gone, and the last
    session that those have signed is over.

    \b
      iam-auth-proxy keyring import PLACE --from-env SECRET_KEY,KMS_SALT
    """
    flags = _Given(place, given)
    found = _from_environment([name.strip() for name in names.split(",")])
    secret = found.get("secret_key")
    material = None if secret is None else secret.encode("utf-8", "surrogatepass")
    stored = flags.open().imported(material, found.get("salt", ""), time.time(), moving)
    flags.say_if_raced(stored)
    with loading():
        from iam_auth_proxy.protocol.keyring import KeyVersion

    if material is not None:
        version = stored.ring.get(KeyVersion.of(material).id)
        until = instant(version.retires) or "it has a successor"
        flags.say(f"{flags.place}: {version.id} is accepted until {until}")
    for salt in stored.ring.salts:
        if salt.salt == found.get("salt"):
            flags.say(f"{flags.place}: the salt is accepted until {instant(salt.until)}")
    return 0


def _from_environment(names: Sequence[str]) -> dict[str, str]:
    """The values, by the names of the server's settings.

    :raises ConfigError: a name is none of theirs, not set, or its value is not to be used.
    """
    with loading():
        from iam_auth_proxy.protocol.keyring import check_secret
        from iam_auth_proxy.server.settings import SETTINGS, read_variable

    known = {
        variable: setting
        for setting in SETTINGS
        if setting.name in ("secret_key", "salt")
        for variable in setting.variables
    }
    problems: list[Problem] = []
    found: dict[str, str] = {}
    for name in names:
        setting = known.get(name)
        if setting is None:
            problems.append(Problem(name, f"is none of {', '.join(known)}"))
            continue
        place, text = read_variable(os.environ, name, problems)
        try:
            if text is not None:
                if setting.secret and (weakness := check_secret(text)) is not None:
                    raise Malformed(f"{weakness}. {_WITHOUT}")
                found[setting.name] = str(setting.read(text))
            elif not any(each.place.startswith(name) for each in problems):
                problems.append(Problem(name, "is not set"))
        except Malformed as error:
            problems.append(Problem(place, str(error)))
    if problems:
        raise ConfigError(problems)
    return found
