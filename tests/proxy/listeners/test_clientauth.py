"""The file of users, and what is taken as one of them."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import ConfigError
from iam_auth_proxy.proxy.listeners import clientauth
from iam_auth_proxy.proxy.listeners.clientauth import (
    Hashed,
    OneSecret,
    Users,
    add,
    load,
    parse_basic,
)

PASSWORD = "correct horse"
HASHED = Hashed.of(PASSWORD.encode())


def basic(text: str) -> bytes:
    return base64.b64encode(text.encode())


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        (b"Basic " + basic("ann:pass"), (b"ann", b"pass")),
        (b"bAsIC   " + basic("ann:p:a:ss") + b" \t", (b"ann", b"p:a:ss")),
        (b"Basic " + basic(":"), (b"", b"")),
        (b"Basic " + basic("ännä:pässword"), ("ännä".encode(), "pässword".encode())),
        (None, None),
        (b"", None),
        (b"Basic", None),
        (b"Basic ", None),
        (b"Basic " + basic("ann"), None),
        (b"Basic YW5uOnBhc3M", None),  # padding is part of it
        (b"Basic ====", None),
        (b"Basic YW5uOnBh-_M=", None),
        (b"Basic YW5uOnBhc3M= x", None),
        (b"Bearer " + basic("ann:pass"), None),
        (b"Basic," + basic("ann:pass"), None),
        (b"Basic " + basic("ann:" + "x" * 1024), None),
    ],
)
def test_basic(value: bytes | None, parsed: tuple[bytes, bytes] | None) -> None:
    assert parse_basic(value) == parsed


@given(st.binary(max_size=200))
def test_any_bytes_are_credentials_or_none(value: bytes) -> None:
    for each in (value, b"Basic " + value, b"Basic " + base64.b64encode(value)):
        found = parse_basic(each)
        assert found is None or b":" not in found[0]


def test_one_secret() -> None:
    secret = OneSecret("s3cret")
    assert secret.accept(b"x", b"s3cret", "")
    assert secret.accept(b"", b"s3cret", "")
    for wrong in (b"", b"s3cre", b"s3cret ", b"S3CRET", "s3crét".encode()):
        assert not secret.accept(b"x", wrong, "")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The passwords that scrypt was asked about."""
    asked: list[bytes] = []
    real = clientauth._scrypt

    def scrypt(password: bytes, salt: bytes, ln: int) -> bytes:
        asked.append(password)
        return real(password, salt, ln)

    monkeypatch.setattr(clientauth, "_scrypt", scrypt)
    return asked


def test_right_and_wrong(computed: list[bytes]) -> None:
    users = Users({"ann": HASHED}, Clock())
    computed.clear()
    assert users.accept(b"ann", PASSWORD.encode(), "10.0.0.1:1")
    assert not users.accept(b"ann", b"correct hors", "10.0.0.1:1")
    assert not users.accept(b"ann", b"", "10.0.0.1:1")
    assert not users.accept(b"bob", PASSWORD.encode(), "10.0.0.1:1")
    assert len(computed) == 4, "an unknown name takes as long as a known one"


def test_what_was_right_once_costs_nothing_more(computed: list[bytes]) -> None:
    users = Users({"ann": HASHED, "bob": Hashed.of(b"another password")}, Clock())
    computed.clear()
    for _ in range(100):
        assert users.accept(b"ann", PASSWORD.encode(), "10.0.0.1:1")
    assert len(computed) == 1
    assert not users.accept(b"bob", PASSWORD.encode(), "10.0.0.1:1")
    assert PASSWORD.encode() not in repr(vars(users)).encode()


def test_wrong_passwords_are_limited(computed: list[bytes]) -> None:
    clock = Clock()
    users = Users({"ann": HASHED}, clock)
    computed.clear()
    for port in range(100):
        assert not users.accept(b"ann", b"guess", f"10.0.0.1:{port}")
    assert len(computed) == 5, "of one client"
    assert not users.accept(b"ann", PASSWORD.encode(), "10.0.0.1:1"), "a guess may be right"
    assert users.accept(b"ann", PASSWORD.encode(), "10.0.0.2:1"), "others are not kept out"
    assert users.accept(b"ann", PASSWORD.encode(), "10.0.0.1:1"), "nor is what is known"
    for number in range(1000):
        users.accept(b"ann", b"guess", f"10.1.{number // 250}.{number % 250}:1")
    assert len(computed) == 31, "of all"
    clock.now += 61
    assert not users.accept(b"ann", b"guess", "10.0.0.1:1")
    assert len(computed) == 32


# -- the file --------------------------------------------------------------------------------------


def written(tmp_path: Path, text: str | bytes, mode: int = 0o600) -> str:
    file = tmp_path / "users"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    file.chmod(mode)
    return str(file)


def test_added_users_can_sign_in(tmp_path: Path) -> None:
    path = str(tmp_path / "users")
    add(path, "ann", PASSWORD)
    add(path, "bob@x.test", "another password")
    assert Path(path).stat().st_mode & 0o777 == 0o600
    text = Path(path).read_text()
    assert PASSWORD not in text
    users = load(path)
    assert users.accept(b"ann", PASSWORD.encode(), "")
    assert users.accept(b"bob@x.test", b"another password", "")
    Path(path).write_text("# people\n\n" + text)
    add(path, "ann", "a new password")
    users = load(path)
    assert not users.accept(b"ann", PASSWORD.encode(), "")
    assert users.accept(b"ann", b"a new password", "")
    assert Path(path).read_text().startswith("# people\n\nbob@x.test:")
    assert [each.name for each in tmp_path.iterdir()] == ["users"]


LINE = f"ann:{HASHED.dumps()}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names nobody"),
        ("# nobody\n", "names nobody"),
        ("ann:hunter2-hunter2\n", "not a hashed password"),
        ("ann\n", "not a hashed password"),
        (f"{LINE}\n{LINE}\n", "ann is there twice"),
        (f"a nn{LINE[3:]}\n", "a user's name"),
        (LINE.replace("ln=14", "ln=13"), "ln is 14 to 16"),
        (LINE.replace("ln=14", "ln=20"), "ln is 14 to 16"),
        (LINE.replace("r=8", "r=99"), "not a hashed password"),
        (LINE.replace("p=1", "p=9"), "not a hashed password"),
        (LINE[:-1], "not a hashed password"),
        ("ann:$2y$05$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe", "not a hashed"),
        (b"\xff\n", "not UTF-8"),
        ("#" * 300_000, "too long"),
    ],
    ids=range(14),  # the passwords are other ones in each process
)
def test_files_that_are_refused(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        load(written(tmp_path, text))
    assert "hunter2" not in str(raised.value)


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    for mode in (0o660, 0o606, 0o622):
        with pytest.raises(ConfigError, match="chmod 600"):
            load(written(tmp_path, LINE, mode))
    load(written(tmp_path, LINE, 0o644))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Run: iam-auth-proxy client-auth add"):
        load(str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="directory"):
        load(str(tmp_path))


def test_what_is_not_added(tmp_path: Path) -> None:
    path = written(tmp_path, LINE + "\n")
    for user, password in (("a:b", PASSWORD), ("", PASSWORD), ("bob", "short"), ("x" * 65, "y")):
        with pytest.raises(ConfigError):
            add(path, user, password)
    with pytest.raises(ConfigError):
        add(str(tmp_path / "no" / "folder"), "ann", PASSWORD)
    assert Path(path).read_text() == LINE + "\n"


@given(st.text(max_size=80))
def test_any_text_is_a_hash_or_refused(text: str) -> None:
    try:
        assert Hashed.loads(text).dumps() == text
    except ValueError:
        pass


def test_hashes_come_back() -> None:
    again = Hashed.loads(HASHED.dumps())
    assert again == HASHED
    assert again.matches(PASSWORD.encode())
    assert HASHED.hash.hex() not in repr(HASHED)
