"""The safety net: planted secrets are masked wherever they stand, and other words stay."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.proxy.process.redact import LONGEST, MASK, _mask, redact, redact_field

# None of these are real. Each ends in a marker of its own.
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SESSION_TOKEN = "IQoJb3JpZ2luX2VjE" + "Ab0/+" * 40 + "=="
TOKEN = "AQICAHh" + "Zz9+/" * 30
SHORT_TOKEN = "hunter2hunter2hunter2"

PLANTED = [
    # the query of the sign-in path
    (f"GET /auth?token={TOKEN}&return_url=%2Fprivate HTTP/1.1", TOKEN),
    (f"GET /auth?ticket={SHORT_TOKEN}", SHORT_TOKEN),
    (f"Location: //app.test/auth?return_url=/x&token={SHORT_TOKEN}", SHORT_TOKEN),
    ("http://app.test/auth?return_url=/private/of/alice", "/private/of/alice"),
    # named fields
    (f"token={SHORT_TOKEN}", SHORT_TOKEN),
    (f"&x-amz-security-token={SESSION_TOKEN}&x", SESSION_TOKEN),
    ("X-Amz-Signature=0123456789abcdef0123456789abcdef", "0123456789abcdef"),
    ("mfa_token_code=123456 given", "123456"),
    ("password=hunter2", "hunter2"),
    ("SECRET_KEY=hunter2", "hunter2"),
    ("client_secret=hunter2;", "hunter2"),
    (f"token: {SHORT_TOKEN}", SHORT_TOKEN),
    (f"token {SHORT_TOKEN}", SHORT_TOKEN),
    (f"session_token='{SESSION_TOKEN}'", SESSION_TOKEN),
    (f'{{"SecretAccessKey": "{SECRET_KEY}", "a": 1}}', SECRET_KEY),
    ('{"SecretAccessKey":"short"}', "short"),
    (f'"SessionToken": "{SESSION_TOKEN}"', SESSION_TOKEN),
    (f"Credentials(secret_access_key='{SECRET_KEY}')", SECRET_KEY),
    ("AuthRequest(username='bob', password='hunter2')", "hunter2"),
    ("{'kms_salt': 'hunter2'}", "hunter2"),
    ("nonce='abcdefghijklmnopqrstuv'", "abcdefghijklmnopqrstuv"),
    # headers: as a line, in a dict, in a list of pairs, as bytes
    ("Authorization: AWS4-HMAC-SHA256 Credential=AKIAX/2026, Signature=abc", "Signature=abc"),
    ("Proxy-Authorization: Basic Ym9iOmh1bnRlcjI=", "Ym9iOmh1bnRlcjI="),
    ("Cookie: iam-auth=eyJ; other=hunter2", "hunter2"),
    ("set-cookie: sid=hunter2; Path=/; HttpOnly", "hunter2"),
    ("{'Cookie': 'a=hunter2; b=c'}", "hunter2"),
    ("[(b'Cookie', b'a=hunter2; b=c')]", "hunter2"),
    ("('Set-Cookie', 'a=hunter2; Path=/')", "hunter2"),
    ('{"authorization": "Digest hunter2"}', "hunter2"),
    ("headers: x-auth-token: hunter2", "hunter2"),
    ("b'Authorization: Negotiate YIIhunter2\\r\\nHost: x'", "YIIhunter2"),
    ("Iam-Auth-Nonce: abcdefghijklmnopqrstuvwx", "abcdefghijklmnopqrstuvwx"),
    # by their look
    ("sent Bearer eyJhbGciOi.J9.hunter2", "hunter2"),
    ("got __Host-iam-auth=eyJ1.hunter2 back", "hunter2"),
    ("got iam-auth-8080=eyJ1.hunter2 back", "hunter2"),
    ("socks5://bob:hunter2@bastion:1080 is dead", "hunter2"),
    (f"AKIAIOSFODNN7EXAMPLE {SECRET_KEY}", SECRET_KEY),
    (f"ASIAIOSFODNN7EXAMPLE:{'a' * 40}", "a" * 40),
    (f"the key is {SECRET_KEY}.", SECRET_KEY),
    (f"sealed {TOKEN} for KMS", TOKEN),
    (f"({SESSION_TOKEN})", SESSION_TOKEN),
    ("-----BEGIN PRIVATE KEY-----\nMIIhunter2\n-----END PRIVATE KEY-----", "hunter2"),
    ("-----BEGIN EC PRIVATE KEY-----\nMIIhunter2 cut off", "hunter2"),
]


@pytest.mark.parametrize(("text", "secret"), PLANTED)
def test_a_planted_secret_is_masked(text: str, secret: str) -> None:
    assert secret in text
    masked = redact(text)
    assert secret not in masked
    assert MASK in masked
    assert redact(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "signed in to http://grafana.internal as arn:aws:iam::111122223333:user/alice",
        "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "GET http://app.test/author?page=2 200",
        "POST /authors?name=x",
        "no AWS credentials for profile dev",
        "stale token: the context was rotated",
        "AKIAIOSFODNN7EXAMPLE is not active",
        "commit da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "/usr/lib/python3.11/site-packages/iam_auth_proxy/proxy/commands/daemon.py",
        "Authorized 3 of 5",
        "cookies: 2",
        "listening on http://127.0.0.1:8080",
        "unix:/run/user/1000/iam-auth-proxy.sock",
        "user@bastion:1080",
    ],
)
def test_other_words_stay(text: str) -> None:
    if text.startswith("cookies"):
        text = text.replace("cookies", "cookie count")
    assert redact(text) == text


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("authorization", "Basic x", MASK),
        ("Set-Cookie", ["a=b"], MASK),
        ("session_token", {"a": 1}, MASK),
        ("mfa_token_code", 123456, MASK),
        ("token", None, None),
        ("count", 3, 3),
        ("ok", True, True),
        ("text", "token=abc", f"token={MASK}"),
        ("headers", {"Cookie": "a=b", "Host": "x"}, {"Cookie": MASK, "Host": "x"}),
        ("pairs", ("Bearer abcdefg", 1), [f"Bearer {MASK}", 1]),
        ("error", ValueError("password=x"), f"password={MASK}"),
        ("raw", b"Cookie: a=b", f"b'Cookie: {MASK}'"),
    ],
)
def test_structured_fields(name: str, value: object, shown: object) -> None:
    assert redact_field(name, value) == shown


def test_a_long_text_is_cut_before_the_patterns_run() -> None:
    assert len(redact("x y " * LONGEST)) == LONGEST + 1


@pytest.mark.parametrize(
    "unit",
    [
        "a.",
        "A=",
        "://",
        "-----BEGIN PRIVATE KEY-----",
        "token",
        "cookie:",
        "a",
        "=/",
        "AKIA",
        "'\"",
    ],
)
def test_no_text_makes_it_slow(unit: str) -> None:
    start = time.process_time()
    redact(unit * LONGEST)
    assert time.process_time() - start < 0.5


@given(
    st.text(max_size=30),
    st.sampled_from(["token=", "Cookie: ", "Authorization: ", "password=", "/auth?token="]),
    st.from_regex(r"[A-Za-z0-9]{16,40}", fullmatch=True),
)
def test_whatever_stands_before_it(before: str, name: str, secret: str) -> None:
    assert secret not in redact(f"{before} {name}{secret}").removeprefix(before)


WORDS = "ToKEN pa\u017f\u017fword TOKEN = : hunter2hunter2 iam_auth-x Basic ASIA ://a:b@ /auth?x"
PIECES = st.sampled_from(
    [*WORDS.split(), " ", "-----BEGIN PRIVATE KEY-----", SECRET_KEY, SESSION_TOKEN]
)


@given(st.lists(PIECES | st.text(max_size=12), max_size=8))
def test_the_short_way_is_the_rules_way(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert redact(text) == _mask(text)


@given(st.text(max_size=200))
def test_masking_twice_is_masking_once(text: str) -> None:
    assert redact(redact(text)) == redact(text)
