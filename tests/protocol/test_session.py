"""The session cookie. The cases are data: tests/vectors/sessions.json."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import BadSession, Expired, Malformed, SessionKeyUnknown
from iam_auth_proxy.protocol import session
from iam_auth_proxy.protocol.identity import Kind
from iam_auth_proxy.protocol.keyring import KeyRing
from iam_auth_proxy.protocol.session import Session
from iam_auth_proxy.protocol.strict import encode_base64
from tests.support import vectors

OLD = KeyRing.from_secret("oL1d8xKq0VbTz4LrYw7PmC3sHd6GkE9b").primary
NEW = KeyRing.from_secret("fJ2n8xKq0VbTz4LrYw7PmC3sHd6GkE9a").primary
RING = KeyRing(primary=NEW, also_accepted=(OLD,))
NOW = 1_700_000_000
ALICE = Session(
    id="s-0123456789abcdef",
    origin="http://app.test",
    arn="arn:aws:iam::123456789012:user/alice",
    user_id="AIDAABCDEFGHIJKLMNOP",
    account="123456789012",
    partition="aws",
    kind=Kind.USER,
    proof="session-credentials",
    issued=NOW,
    expires=NOW + 43_200,
    renewed=NOW,
)


def opened(case: dict[str, Any]) -> Session:
    return session.open_(
        case["value"], RING, origin=case["origin"], now=case["now"], idle=case["idle"]
    )


class TestValue:
    @pytest.mark.parametrize("case", vectors.accepted("sessions"))
    def test_is_opened(self, case: dict[str, Any]) -> None:
        expected = Session(**{**case["session"], "kind": Kind(case["session"]["kind"])})
        assert opened(case) == expected
        assert type(opened(case).kind) is Kind

    @pytest.mark.parametrize("case", vectors.accepted("sessions"))
    def test_is_sealed_as_other_releases_do(self, case: dict[str, Any]) -> None:
        """Workers of two releases share visitors: the format is frozen by the vectors."""
        found = opened(case)
        ring = KeyRing(primary=NEW if case["value"].startswith(NEW.id) else OLD)
        assert session.seal(found, ring, found.renewed) == case["value"]

    @pytest.mark.parametrize(("case", "error"), vectors.refused("sessions"))
    def test_is_refused(self, case: dict[str, Any], error: str) -> None:
        expected = Expired if "is over" in error or "idle" in error else BadSession
        with pytest.raises(expected, match=re.escape(error)):
            opened(case)

    def test_is_sealed_with_the_primary_and_opened_with_either(self) -> None:
        value = session.seal(ALICE, KeyRing(primary=OLD, also_accepted=(NEW,)), NOW)
        assert value.startswith(OLD.id + ".")
        assert session.open_(value, RING, origin=ALICE.origin, now=NOW) == ALICE
        with pytest.raises(SessionKeyUnknown, match=f"{OLD.id} is not in the ring"):
            session.open_(value, KeyRing(primary=NEW), origin=ALICE.origin, now=NOW)

    def test_is_renewed_by_sealing_it_again(self) -> None:
        """The idle limit counts from the last writing, the absolute one from the sign-in."""
        value = session.seal(ALICE, RING, NOW)
        for now in range(NOW, ALICE.expires, 3000):
            found = session.open_(value, RING, origin=ALICE.origin, now=now, idle=3600)
            value = session.seal(found, RING, now)
            assert found == replace(ALICE, renewed=max(NOW, now - 3000))
        with pytest.raises(Expired, match="over"):
            session.open_(value, RING, origin=ALICE.origin, now=ALICE.expires, idle=3600)

    def test_every_key_that_signed_it_has_to_be_there(self) -> None:
        """A renewal does not wash off what a key that is disabled since had signed."""
        third = KeyRing.from_secret("zW5n8xKq0VbTz4LrYw7PmC3sHd6GkE9c").primary
        value = session.seal(ALICE, KeyRing(primary=OLD), NOW)
        for primary in (NEW, third, NEW, NEW):
            ring = KeyRing(primary=primary, also_accepted=tuple({OLD, NEW, third} - {primary}))
            found = session.open_(value, ring, origin=ALICE.origin, now=NOW)
            value = session.seal(found, ring, NOW)
            assert session.open_(value, ring, origin=ALICE.origin, now=NOW) == ALICE
        assert value.startswith(NEW.id)
        for gone, others in ((OLD, (third,)), (third, (OLD,))):
            with pytest.raises(SessionKeyUnknown, match=f"{gone.id} is not in the ring"):
                session.open_(
                    value,
                    KeyRing(primary=NEW, also_accepted=others),
                    origin=ALICE.origin,
                    now=NOW,
                )

    def test_without_a_rotation_no_keys_are_named(self) -> None:
        found = session.open_(session.seal(ALICE, RING, NOW), RING, origin=ALICE.origin, now=NOW)
        assert found.keys == (NEW.id,)
        assert session.seal(found, RING, NOW) == session.seal(ALICE, RING, NOW)

    @pytest.mark.parametrize("keys", ["[1]", '["x"]', '[""]', '"ab"', "null", "[[]]"])
    def test_other_keys_are_none(self, keys: str) -> None:
        claims = json.dumps(asdict(ALICE) | {"keys": json.loads(keys)})
        payload = encode_base64(claims.replace(f', "renewed": {NOW}', "").encode(), urlsafe=True)
        value = session._signer(NEW, NOW).sign(f"{NEW.id}.{payload}").decode()
        with pytest.raises(BadSession, match="does not verify"):
            session.open_(value, RING, origin=ALICE.origin, now=NOW)

    def test_that_no_browser_would_keep_is_not_made(self) -> None:
        room = 2952 - len(session.seal(ALICE, RING, NOW)[13:-51]) * 3 // 4 + len(ALICE.arn)
        longest = replace(ALICE, arn="a" * room)
        value = session.seal(longest, RING, NOW)
        assert len(value) == 4000
        assert session.open_(value, RING, origin=ALICE.origin, now=NOW) == longest
        with pytest.raises(Malformed, match="too long for a cookie"):
            session.seal(replace(ALICE, arn="a" * (room + 1)), RING, NOW)

    def test_every_character_counts(self) -> None:
        value = session.seal(ALICE, RING, NOW)
        for place in range(len(value)):
            for other in "A-_.z":
                if value[place] != other:
                    changed = value[:place] + other + value[place + 1 :]
                    with pytest.raises(BadSession):
                        session.open_(changed, RING, origin=ALICE.origin, now=NOW)

    @given(
        st.builds(
            Session,
            id=st.text(max_size=20),
            origin=st.text(max_size=30),
            arn=st.text(max_size=60),
            user_id=st.text(max_size=30),
            account=st.text(max_size=12),
            partition=st.text(max_size=12),
            kind=st.sampled_from(Kind),
            proof=st.text(max_size=20),
            issued=st.integers(0, NOW),
            expires=st.integers(NOW + 1, NOW * 2),
            renewed=st.just(NOW),
        )
    )
    def test_what_is_sealed_is_opened(self, made: Session) -> None:
        value = session.seal(made, RING, NOW)
        assert re.fullmatch(r"[A-Za-z0-9._-]+", value)
        assert session.open_(value, RING, origin=made.origin, now=NOW, idle=0) == made

    @given(
        st.text(max_size=60) | st.from_regex(NEW.id + r"\.[A-Za-z0-9_-]{1,9}\.[\w-]{0,9}\.\w{43}")
    )
    def test_nothing_but_our_errors(self, value: str) -> None:
        with pytest.raises(BadSession):
            session.open_(value, RING, origin="http://app.test", now=NOW)
