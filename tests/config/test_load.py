"""Precedence of the sources, and every problem at once, each with its place."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.config import OPTIONS, SYSTEM_FILE, ViaSettings, load, user_file
from iam_auth_proxy.errors import ConfigError, Malformed, Problem

KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER_KEY = KEY.replace("1234abcd", "ffffffff")
ROLE = "arn:aws:iam::111122223333:role/Login"
PEM = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"


def flags(**given: str | Sequence[str]) -> dict[str, str | Sequence[str]]:
    return {name.replace("_", "-"): text for name, text in given.items()}


def problems(
    given: Mapping[str, str | Sequence[str]] | None = None,
    environ: Mapping[str, str] | None = None,
    files: Sequence[Path] = (),
    required: Path | None = None,
) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as raised:
        load(given or {}, environ or {}, files, required=required)
    assert raised.value.exit_status == 2
    return [(problem.place, problem.text) for problem in raised.value.problems]


# -- precedence ------------------------------------------------------------------------------------


def test_nothing_given_is_the_defaults() -> None:
    settings = load({}, {}, [])
    assert settings.bind.hosts == ("127.0.0.1", "::1")
    assert settings.bind.port == 8080
    assert settings.session_duration == 3600
    assert settings.log_level == "info"
    assert settings.log_format == "auto"
    assert settings.sign_in == "auto"
    assert settings.trust == ()
    assert settings.quiet is False


def test_flag_over_environment_over_user_over_system(tmp_path: Path) -> None:
    user, system = tmp_path / "user.toml", tmp_path / "system.toml"
    system.write_text('profile = "system"\nregion = "eu-west-4"\nbind = ":4"\nsign_in="redirect"\n')
    user.write_text('profile = "user"\nregion = "eu-west-3"\nbind = ":3"\n')
    environ = {"IAM_AUTH_PROXY_PROFILE": "environ", "IAM_AUTH_PROXY_REGION": "eu-west-2"}
    settings = load(flags(profile="flag"), environ, [user, system])
    assert settings.profile == "flag"
    assert settings.region == "eu-west-2"
    assert settings.bind.port == 3
    assert settings.sign_in == "redirect"
    assert settings.files == (user, system)


def test_an_empty_text_is_as_if_not_given_in_every_source(tmp_path: Path) -> None:
    user, system = tmp_path / "user.toml", tmp_path / "system.toml"
    user.write_text('region = ""\ntrust = [""]\n')
    system.write_text('region = "eu-west-1"\n')
    environ = {"IAM_AUTH_PROXY_REGION": ""}
    assert load(flags(region="", trust=[]), environ, [user, system]).region == "eu-west-1"


def test_options_that_repeat_add_up_over_the_sources(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        'trust = ["http://file.test"]\nallow_targets = ["127.0.0.1:9000"]\n'
        'connect_to = "a.test:80:127.0.0.1:81"\n'
        f'[[app]]\norigin = "http://app.test"\nkms_keys = ["{KEY}", "{OTHER_KEY}"]\n'
    )
    settings = load(
        flags(trust=["http://flag.test"]),
        {"IAM_AUTH_PROXY_TRUST": f" http://one.test\nhttp://two.test={KEY} "},
        [file],
    )
    assert [(str(rule), rule.keys, rule.place) for rule in settings.trust] == [
        ("http://flag.test", (), "--trust"),
        ("http://one.test", (), "IAM_AUTH_PROXY_TRUST"),
        ("http://two.test", (KEY,), "IAM_AUTH_PROXY_TRUST"),
        ("http://file.test", (), f"{file}:1"),
        ("http://app.test", (KEY, OTHER_KEY), f"{file}:4"),
    ]
    assert settings.allow_targets == ("127.0.0.1:9000",)
    assert settings.connect_to == ("a.test:80:127.0.0.1:81",)


def test_every_key_of_the_file(tmp_path: Path) -> None:
    cacert = tmp_path / "ca.pem"
    cacert.write_text(PEM)
    file = tmp_path / "config.toml"
    file.write_text(
        f"""\ufeff
        bind = "unix:/run/user/1000/iam-auth-proxy.sock"
        profile = "dev"
        region = "eu-west-1"
        sign_in = "redirect"
        log_level = "warn"
        log_format = "json"
        socks_proxy = "127.0.0.1:1080"
        cacert = "{cacert}"
        quiet = true
        [assume_role]
        arn = "{ROLE}"
        external_id = "abc"
        session_name = "alice"
        policy = '{{"Version":"2012-10-17"}}'
        duration = "30m"
        [mfa]
        serial = "arn:aws:iam::111122223333:mfa/alice"
        """,
        "utf-8",
    )
    settings = load({}, {}, [file])
    assert settings.bind.path == "/run/user/1000/iam-auth-proxy.sock"
    assert settings.log_level == "warning"
    assert settings.assume_role_arn == ROLE
    assert settings.assume_role_policy == '{"Version":"2012-10-17"}'
    assert settings.session_duration == 1800
    assert settings.mfa_serial_number.endswith("mfa/alice")
    assert settings.cacert == str(cacert)
    assert settings.socks_proxy == "127.0.0.1:1080"
    assert settings.quiet is True


def test_the_users_file_and_the_systems() -> None:
    assert user_file().name == "config.toml"
    assert user_file().parent.name == "iam-auth-proxy"
    assert Path("/etc/iam-auth-proxy/config.toml") == SYSTEM_FILE


def test_loading_changes_nothing(tmp_path: Path) -> None:
    environ = {"IAM_AUTH_PROXY_PROFILE": "dev"}
    load({}, environ, [tmp_path / "absent" / "config.toml"])
    assert environ == {"IAM_AUTH_PROXY_PROFILE": "dev"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "level"),
    [("debug", "debug"), ("warn", "warning"), ("trace", "debug"), ("panic", "error")],
)
def test_levels_of_the_original_are_taken(given: str, level: str) -> None:
    assert load(flags(log_level=given), {}, []).log_level == level


def test_quiet_is_warnings_and_errors_unless_the_level_is_given() -> None:
    assert load(flags(quiet="true"), {}, []).log_level == "warning"
    assert load(flags(quiet="true"), {"IAM_AUTH_PROXY_LOG_LEVEL": "debug"}, []).log_level == "debug"
    assert load({}, {"IAM_AUTH_PROXY_QUIET": "1"}, []).quiet


# -- problems --------------------------------------------------------------------------------------


def test_all_problems_at_once_each_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        '# a comment with regoin = 1\nregoin = "eu-west-1"\nprofile = 3\n\n'
        '[assume_role]  # the role\nduration = "1d"\n"external_id" = "x"\nwhat = 1\n'
        '[[ app ]]\norigin = "grafana.internal"\n'
        '[[app]]\nkms_keys = []\n[[app]]\norigin = "http://a.test"\nkms_key = ["x"]\n'
        '[[app]]\norigin = "http://b.test"\nkms_keys = "x"\n'
    )
    found = problems(
        flags(bind="0.0.0.0:80", trust=["a.test"], log_level="inof"),
        {"IAM_AUTH_PROXY_REGION": "mars", "IAM_AUTH_PROXY_PROFIL": "x", "PATH": "x"},
        [file],
    )
    places = [place for place, _ in found]
    assert sorted(places) == sorted(
        ["--bind", "--trust", "--log-level", "IAM_AUTH_PROXY_REGION", "IAM_AUTH_PROXY_PROFIL"]
        + [f"{file}:{line}" for line in (2, 3, 6, 7, 7, 8, 9, 11, 15, 18)]
    )
    texts = dict(found)
    assert "loopback" in texts["--bind"]
    assert texts["--log-level"].endswith("did you mean info?")
    assert texts["IAM_AUTH_PROXY_PROFIL"].endswith("did you mean IAM_AUTH_PROXY_PROFILE?")
    assert texts[f"{file}:2"] == "regoin is not an option; did you mean region?"
    assert texts[f"{file}:3"] == "profile must be a string"
    assert "duration" in texts[f"{file}:6"]
    assert texts[f"{file}:8"] == "assume_role.what is not an option"
    assert texts[f"{file}:11"].startswith("an [[app]] needs origin")
    assert texts[f"{file}:15"] == "kms_key is not an option; did you mean kms_keys?"
    assert texts[f"{file}:18"] == "kms_keys must be a list of key ARNs"


def test_a_variable_that_resembles_nothing_gets_no_guess() -> None:
    [(place, text)] = problems(environ={"IAM_AUTH_PROXY_ZZZZ": "1"})
    assert (place, text) == ("IAM_AUTH_PROXY_ZZZZ", "is not an option")


def test_variables_that_other_modules_read_are_known() -> None:
    load({}, {"IAM_AUTH_PROXY_SOCKS_PASSWORD": "x", "IAM_AUTH_PROXY_CONFIG": "y"}, [])


@pytest.mark.parametrize(
    ("source", "line", "text"),
    [
        (b"= 1", 1, "is not TOML"),
        (b'bind = ":1"\nbind = ":2"\n', 2, "is not TOML"),
        (b'bind = "\xff"', None, "is not UTF-8"),
        (b"x = " + b"[" * 20000, None, "is nested too deeply"),
        (b"x = " + b"9" * 5000, None, "cannot be read: Exceeds the limit"),
        (b'[app]\norigin = "http://a.test"\n', 1, "write each app as [[app]]"),
        (b"app = [1]", 1, "write each app as [[app]]"),
        (b'app = [{ origin = "nope" }]', None, "'nope'"),
        (b'[[app]]\norigin = "http://*.co.uk"\n', 1, "a wildcard needs a domain"),
        (b"trust = [1]", 1, "trust must be a list of strings"),
        (b'quiet = "perhaps"', 1, "'perhaps': write true or false"),
        (b"quiet = 1", 1, "quiet must be true or false"),
        (b"profile = true", 1, "profile must be a string"),
        (b'mfa = { serial = "x" }', 1, "'x': not a device"),
        (b'mfa.token_code = "123456"', 1, "mfa.token_code is not an option"),
        (b'[via.bastion]\nsock = "a:1"', 2, "did you mean via.bastion.socks?"),
        (b'[mfa]\nseriall = "x"', 2, "did you mean mfa.serial?"),
        (b'"r\\u0065gion" = 1', None, "region must be a string"),
        (b'cacert = "a\\u0000b"', 1, "is not a path"),
    ],
)
def test_a_file_that_cannot_be_used(
    tmp_path: Path, source: bytes, line: int | None, text: str
) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(source)
    [(place, said)] = problems(files=[file])
    assert place == (f"{file}:{line}" if line else str(file))
    assert text in said


def test_only_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    absent = tmp_path / "absent.toml"
    assert load({}, {}, [absent]).files == ()
    assert problems(files=[absent], required=absent) == [(str(absent), "no such file")]


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    assert problems(files=[tmp_path]) == [(str(tmp_path), "Is a directory")]


def test_what_other_rooms_check_is_reported_with_the_rest() -> None:
    def refuse(text: str) -> object:
        raise Malformed("not a proxy", remedy="Write HOST:PORT.")

    with pytest.raises(ConfigError) as raised:
        load(flags(socks_proxy="x", region="y"), {}, [], checks={"socks-proxy": refuse})
    assert [str(problem) for problem in raised.value.problems] == [
        "--region: 'y': not an AWS region such as eu-west-1",
        "--socks-proxy: 'x': not a proxy. Write HOST:PORT.",
    ]


# -- what no option can see alone ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "place", "text"),
    [
        (flags(assume_role_external_id="abc"), "--assume-role-external-id", "needs --assume-role-"),
        (flags(assume_role_session_name="abc"), "--assume-role-session-name", "needs --assume-"),
        (flags(assume_role_policy="{}"), "--assume-role-policy", "needs --assume-role-arn"),
        (flags(mfa_token_code="123456"), "--mfa-token-code", "needs --mfa-serial-number"),
        (flags(assume_role_arn=ROLE, session_duration="13h"), "--session-duration", "at most 12h"),
        (flags(assume_role_arn=ROLE, session_duration="37h"), "--session-duration", "15m to 36h"),
        (flags(session_duration="14m"), "--session-duration", "15m to 36h"),
        (flags(ssh_bastion="b", socks_proxy="b:1"), "--ssh-bastion", "leave --socks-proxy out"),
        (flags(ssh=["ssh"]), "--ssh", "needs --ssh-bastion"),
        (flags(cacert="/nowhere/ca.pem"), "--cacert", "No such file"),
        (flags(cacert="~nobody-of-that-name/ca.pem"), "--cacert", "No such file"),
        (flags(cacert="/etc/passwd"), "--cacert", "holds no PEM certificate"),
        (flags(assume_role_arn=ROLE, assume_role_policy="{"), "--assume-role-policy", "JSON"),
        (flags(assume_role_arn=ROLE, assume_role_policy="/nowhere"), "--assume-role-policy", "No "),
        (flags(assume_role_arn=ROLE, assume_role_policy=__file__), "--assume-role-policy", "JSON"),
        (
            flags(assume_role_arn=ROLE, assume_role_policy='{"Sid":"' + "x" * 2048 + '"}'),
            "--assume-role-policy",
            "2,048",
        ),
    ],
)
def test_refused_together(given: dict[str, str | Sequence[str]], place: str, text: str) -> None:
    [(where, said)] = problems(given)
    assert where == place
    assert text in said


def test_a_policy_is_json_or_a_path(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text('{"Version": "2012-10-17"}')
    for text in (file.read_text(), str(file)):
        settings = load(flags(assume_role_arn=ROLE, assume_role_policy=text), {}, [])
        assert settings.assume_role_policy == '{"Version": "2012-10-17"}'
    file.write_text("[]")
    [(_, text)] = problems(flags(assume_role_arn=ROLE, assume_role_policy=str(file)))
    assert text == "a policy is a JSON object"


def test_a_role_may_have_twelve_hours_and_an_mfa_session_thirty_six() -> None:
    assert load(flags(assume_role_arn=ROLE, session_duration="12h"), {}, []).session_duration
    assert load(flags(session_duration="36h"), {}, []).session_duration == 129_600


# -- secrets ---------------------------------------------------------------------------------------


def test_an_mfa_code_is_in_no_problem_and_no_repr() -> None:
    serial = "arn:aws:iam::111122223333:mfa/alice"
    given = flags(mfa_token_code="12345x", mfa_serial_number=serial)
    [(place, text)] = problems(given)
    assert place == "--mfa-token-code"
    assert "12345x" not in text
    settings = load(flags(mfa_token_code="123456", mfa_serial_number=serial), {}, [])
    assert settings.mfa_token_code == "123456"
    assert "123456" not in repr(settings).replace(serial, "")


@pytest.mark.parametrize(
    "given", ["socks5://bob:hunter2@bastion:1080", "bob:hunter2@b:1", "http://bob:hun@ter2@b:1"]
)
def test_a_password_in_a_proxy_address_is_not_quoted(given: str) -> None:
    def refuse(text: str) -> object:
        raise Malformed("a password belongs into the environment")

    with pytest.raises(ConfigError) as raised:
        load(flags(socks_proxy=given), {}, [], checks={"socks-proxy": refuse})
    assert "bob:***@b" in str(raised.value)
    assert "hun" not in str(raised.value)


def test_a_long_text_is_cut_where_it_is_quoted() -> None:
    [(_, text)] = problems(flags(region="x" * 5000))
    assert len(text) < 300


# -- anything at all -------------------------------------------------------------------------------


def problems_of(
    given: Mapping[str, str | Sequence[str]], files: Sequence[Path]
) -> list[tuple[str, str]]:
    try:
        load(given, {}, files)
    except ConfigError as error:
        return [(problem.place, problem.text) for problem in error.problems] or [("", "no problem")]
    return []


@given(
    st.dictionaries(
        st.sampled_from([option.name for option in OPTIONS]), st.text(max_size=40), max_size=6
    )
)
def test_any_flags_are_settings_or_a_config_error(given: dict[str, str]) -> None:
    texts: dict[str, str | Sequence[str]] = {}
    for option in OPTIONS:
        if option.name in given:
            text = given[option.name]
            texts[option.name] = [text] if option.repeat else text
    places = {place for place, _ in problems_of(texts, [])}
    assert places <= {f"--{name}" for name in given}


TOML = st.lists(
    st.one_of(
        st.sampled_from(["[[app]]", "[app]", "[mfa]", 'origin = "http://a.test"', "kms_keys = 1"]),
        st.sampled_from(['bind = ":1"', "trust = []", "quiet = true", "[[", "=", '"', "'''", "#"]),
        st.text(max_size=20),
    ),
    max_size=8,
).map("\n".join)


@given(source=TOML)
def test_any_file_is_settings_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, source: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(source.encode("utf-8", "surrogatepass"))
    assert all(place.startswith(str(file)) for place, _ in problems_of({}, [file]))


@pytest.mark.parametrize("bind", ["0.0.0.0:8080", "[::]:8080", "192.168.1.5:8080"])
def test_what_others_reach_needs_client_authentication(bind: str, tmp_path: Path) -> None:
    [(place, said)] = problems(flags(bind=bind))
    assert place == "--bind"
    assert "Bind to 127.0.0.1:8080, which is loopback only, or add --client-auth FILE" in said
    [(place, _)] = problems(flags(bind=bind, allow_other_users="true"))
    assert place == "--bind"
    file = tmp_path / "config.toml"
    file.write_text(f'bind = "{bind}"\n')
    [(place, _)] = problems(files=[file])
    assert place == f"{file}:1"
    assert load(flags(bind=bind, client_auth="users"), {}, []).client_auth == "users"


# -- apps and routes -------------------------------------------------------------------------------


def test_what_an_app_can_say(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        'proofs = ["session-credentials"]\nkey_accounts = ["222233334444"]\n'
        'login_role_arn = "arn:aws:iam::111122223333:role/Login"\nreplay_body = "1MiB"\n'
        '[via.bastion]\nsocks = "ann@127.0.0.1:8081"\npassword_file = "/run/password"\n'
        f'[[app]]\norigin = "http://app.test"\nprofile = "ops"\nkms_keys = ["{KEY}"]\n'
        'via = "bastion"\nproofs = ["signed-identity"]\nallow_from = ["https://portal.test/"]\n'
    )
    settings = load({}, {}, [file])
    assert settings.proofs == ("session-credentials",)
    assert settings.key_accounts == ("222233334444",)
    assert settings.login_role_arn.endswith(":role/Login")
    assert settings.replay_body == 2**20
    via = settings.vias["bastion"]
    assert (via.name, via.socks, via.password_file, via.place) == (
        "bastion",
        "ann@127.0.0.1:8081",
        "/run/password",
        f"{file}:5",
    )
    [rule] = settings.trust
    assert (rule.profile, rule.keys, rule.via) == ("ops", (KEY,), "bastion")
    assert rule.proofs == ("signed-identity",)
    assert [str(origin) for origin in rule.allow_from] == ["https://portal.test"]
    assert (rule.source, rule.place) == ("user", f"{file}:8")


def test_proofs_do_not_add_up_over_the_sources(tmp_path: Path) -> None:
    user, system = tmp_path / "user.toml", tmp_path / "system.toml"
    user.write_text('proofs = ["signed-identity"]\n')
    system.write_text('proofs = ["session-credentials"]\nkey_accounts = ["111122223333"]\n')
    assert load({}, {}, []).proofs == ("signed-identity",)
    assert load({}, {}, [system]).proofs == ("session-credentials",)
    assert load({}, {}, [user, system]).proofs == ("signed-identity",)
    both = load({}, {"IAM_AUTH_PROXY_PROOF": "session-credentials signed-identity"}, [user, system])
    assert both.proofs == ("session-credentials", "signed-identity")


def test_where_a_rule_comes_from(tmp_path: Path) -> None:
    user, system = tmp_path / "user.toml", tmp_path / "system.toml"
    user.write_text('trust = ["http://u.test"]\n')
    system.write_text('[[app]]\norigin = "http://s.test"\n')
    environ = {"IAM_AUTH_PROXY_TRUST": "http://e.test"}
    settings = load({"trust": ["http://f.test"]}, environ, [user, system], system=[system])
    assert {str(rule): rule.source for rule in settings.trust} == {
        "http://f.test": "flag",
        "http://e.test": "environment",
        "http://u.test": "user",
        "http://s.test": "system",
    }


def test_how_an_app_on_https_is_reached(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        '[[app]]\norigin = "https://wiki.internal"\nhttps = "alias"\n'
        '[[app]]\norigin = "https://a.internal:8443"\nhttps = "alias"\nalias = "build-1"\n'
        '[[app]]\norigin = "https://b.internal"\nhttps = "intercept"\n'
        '[[app]]\norigin = "https://c.internal"\n'
    )
    settings = load({"alias": ["d=https://d.internal"]}, {}, [file])
    found = {str(rule): (rule.https, rule.alias, rule.alias_name) for rule in settings.trust}
    assert found == {
        "https://d.internal": ("alias", "d", "d"),
        "https://wiki.internal": ("alias", "", "wiki"),
        "https://a.internal:8443": ("alias", "build-1", "build-1"),
        "https://b.internal": ("intercept", "", ""),
        "https://c.internal": ("", "", ""),
    }


@pytest.mark.parametrize(
    ("app", "line", "said"),
    [
        ('origin = "https://a.test"\nalias = "a"', 3, 'an alias needs https = "alias" beside it'),
        (
            'origin = "https://a.test"\nhttps = "tunnel"\nalias = "a"',
            4,
            'an alias needs https = "alias" beside it',
        ),
        ('origin = "https://*.a.test"\nhttps = "alias"', 3, "an alias is of one app"),
        ('origin = "https://10.0.0.1"\nhttps = "alias"', 3, "this host needs a name: alias ="),
        ('origin = "https://a_b.test"\nhttps = "alias"', 3, "this host needs a name: alias ="),
        (
            'origin = "https://wiki.test"\nhttps = "alias"\n'
            '[[app]]\norigin = "https://wiki.other"\nhttps = "alias"',
            4,
            "https://wiki.other: the alias wiki is https://wiki.test's",
        ),
    ],
)
def test_an_alias_that_cannot_be(tmp_path: Path, app: str, line: int, said: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[[app]]\n{app}\n")
    [(place, text)] = problems(files=[file])
    assert place == f"{file}:{line}"
    assert said in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wiki", "write NAME=https://HOST"),
        ("wiki=http://wiki.internal", "an alias is of one https://HOST"),
        ("wiki=https://*.corp.internal", "an alias is of one https://HOST"),
        (f"wiki=https://wiki.internal={KEY}", "an alias is of one https://HOST"),
        ("Wiki=https://wiki.internal", "an alias is one label"),
        ("=https://wiki.internal", "an alias is one label"),
        ("-wiki=https://wiki.internal", "an alias is one label"),
        ("w=https://wiki.internal/page", "with no path after it"),
    ],
)
def test_a_flag_that_is_no_alias(text: str, said: str) -> None:
    [(place, found)] = problems({"alias": [text]})
    assert place == "--alias"
    assert said in found


@pytest.mark.parametrize(
    ("toml", "line", "said"),
    [
        ('https = "alias"', 3, "http://a.test is not an https:// origin"),
        ('https = "aliass"', 3, "not one of alias, intercept, tunnel; did you mean alias?"),
        ('alias = "wiki"', 3, "http://a.test is not an https:// origin"),
        ('alias = "a.b"', 3, "an alias is one label"),
        ('alias = "localhost"', 3, "an alias is one label"),
        ('via = "bastoin"', 3, "there is no [via.bastoin]; did you mean bastion?"),
        ('via = "a b"', 3, "a route's name is"),
        ("via = 3", 3, "via must be a string"),
        ('proofs = ["identity"]', 3, "not one of signed-identity, session-credentials"),
        ("proofs = [1]", 3, "proofs must be a list of proofs"),
        ('allow_from = ["portal"]', 3, "an origin is"),
        ('profile = "a]b"', 3, "not the name of an AWS profile"),
        ("kms_keys = [1]", 3, "kms_keys must be a list of key ARNs"),
        ('profil = "x"', 3, "did you mean profile?"),
    ],
)
def test_what_an_app_cannot_say(tmp_path: Path, toml: str, line: int, said: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'[[app]]\norigin = "http://a.test"\n{toml}\n[via.bastion]\nsocks = "b:1"\n')
    [(place, text)] = problems(files=[file])
    assert place == f"{file}:{line}"
    assert said in text


@pytest.mark.parametrize(
    ("toml", "line", "said"),
    [
        ("[via.b]\n", 1, 'a route needs socks = "HOST:PORT" or ssh_bastion = "HOST"'),
        ('[via.b]\nssh_bastion = "-oX"\n', 2, "a bastion is [USER@]HOST"),
        ("[via.b]\nssh_bastion = 1\n", 2, "ssh_bastion must be a string"),
        ('[via.b]\nssh_bastion = "b"\nsocks = "b:1"\n', 3, "say either ssh_bastion, or socks"),
        (
            '[via.b]\nssh_bastion = "b"\npassword_file = "f"\n',
            3,
            "say either ssh_bastion, or socks",
        ),
        ('[via.b]\nsocks = "b:1"\nssh = ["ssh"]\n', 3, "ssh is the command of an ssh_bastion"),
        ('[via.b]\nssh_bastion = "b"\nssh = "ssh -F x"\n', 3, "ssh must be a list of words"),
        ('[via.b]\nssh_bastion = "b"\nssh = []\n', 3, "ssh must be a list of words"),
        ('[via.direct]\nsocks = "b:1"\n', 1, "is what an app says that takes no route"),
        ('[via."a b"]\nsocks = "b:1"\n', 1, "a route's name is"),
        ("[via.b]\nsocks = 1\n", 2, "socks must be a string"),
        ('via = "b"\n', 1, "write each route as [via.NAME]"),
        ('[via]\nsocks = "b:1"\n', 1, "write each route as [via.NAME]"),
        ('[via.b]\nsocks = "x"\n', 2, "not a proxy"),
        ('[via.b]\nsocks = "b:1"\npassword = "hunter2"\n', 3, "password is not an option"),
    ],
)
def test_what_a_route_cannot_be(tmp_path: Path, toml: str, line: int, said: str) -> None:
    def check(via: ViaSettings) -> None:
        if via.socks == "x":
            raise Malformed("not a proxy")

    file = tmp_path / "config.toml"
    file.write_text(toml)
    with pytest.raises(ConfigError) as raised:
        load({}, {}, [file], check_via=check)
    [problem] = raised.value.problems
    assert problem.place == f"{file}:{line}"
    assert said in problem.text
    assert "hunter2" not in problem.text


def test_files_that_others_can_write_are_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("")
    file.chmod(0o664)
    [warning] = load({}, {}, [file]).warnings
    assert f"chmod go-w {file}" in warning.text
    file.chmod(0o644)
    assert load({}, {}, [file]).warnings == ()


def test_what_a_check_finds_behind_a_text_is_told_with_the_rest() -> None:
    def refuse(text: str) -> object:
        raise ConfigError([Problem("users:1", "is there twice"), Problem("users:2", "is none")])

    with pytest.raises(ConfigError) as raised:
        load(flags(client_auth="users", log_level="x"), {}, [], checks={"client-auth": refuse})
    places = [problem.place for problem in raised.value.problems]
    assert sorted(places) == ["--log-level", "users:1", "users:2"]


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('[[apps]]\norigin = "http://a.test"\n', "apps is not an option; did you mean [[app]]?"),
        ('[apps]\norigin = "x"\n', "apps.origin is not an option; did you mean [[app]]?"),
        ('[vias.b]\nsocks = "b:1"\n', "vias.b.socks is not an option; did you mean [via.NAME]?"),
    ],
)
def test_a_table_by_another_name(tmp_path: Path, toml: str, said: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(toml)
    assert [text for _, text in problems(files=[file])] == [said]


def test_an_origin_stands_once_in_a_file(tmp_path: Path) -> None:
    file, system = tmp_path / "config.toml", tmp_path / "system.toml"
    file.write_text(
        '[[app]]\norigin = "http://a.test"\nprofile = "ops"\n'
        '[[app]]\norigin = "http://A.test:80/"\nproofs = ["session-credentials"]\nkms_keys = 1\n'
        '[[app]]\norigin = "http://*.a.test"\n[[app]]\norigin = "https://a.test"\n'
    )
    system.write_text('[[app]]\norigin = "http://a.test"\n')  # of two files it is a layer
    texts = dict(problems(files=[file, system]))
    assert list(texts) == [f"{file}:7", f"{file}:4"]
    expected = f"http://a.test is listed at {file}:1 already: make one [[app]] of both"
    assert texts[f"{file}:4"] == expected


def test_an_apps_route_and_its_other_mistakes_are_told_together(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        '[via.bastion2]\nsock = "a:1"\n'
        '[[app]]\norigin = "http://a.test"\nvia = "bastion"\nkms_keys = ["x"]\n'
        '[[app]]\norigin = "http://b.test"\nvia = "bastion2"\n'
    )
    texts = dict(problems(files=[file]))
    assert set(texts) == {f"{file}:{line}" for line in (2, 5, 6)}
    assert "there is no [via.bastion]; did you mean bastion2?" in texts[f"{file}:5"]
