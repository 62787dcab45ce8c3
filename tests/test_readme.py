"""What the documents say is so: tables, links, policies, snippets, commands."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import click
import pytest

from iam_auth_proxy import config
from iam_auth_proxy.aws.base import CallerIdentity
from iam_auth_proxy.cli.commands import cli
from iam_auth_proxy.proxy.commands.announce import what_next, where, who
from iam_auth_proxy.server import Gate
from iam_auth_proxy.testing import signed_in
from tests.server import apps
from tests.support import tables
from tests.support.processes import (
    PATIENCE,
    ROOT,
    Child,
    Proxy,
    base_env,
    free_port,
    nginx,
    program,
)

README = tables.README.read_text("utf-8")
DEPLOYMENT = (ROOT / "docs/deployment.md").read_text("utf-8")
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", ".github/*.md")
    for path in ROOT.glob(pattern)
)
OLD_KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ALICE = "arn:aws:iam::111122223333:user/alice"


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language, without their indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", body, flags=re.MULTILINE) for indent, body in found]


_FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)


def section(text: str, heading: str) -> str:
    """From a heading to the next one of its level or above."""
    level = len(heading.partition(" ")[0])
    # Of the same length, but without the comments of code, which look like headings.
    bare = _FENCED.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), text)
    start = bare.index(f"\n{heading}\n") + 1
    end = re.compile(rf"^#{{1,{level}}} ", re.MULTILINE).search(bare, start + len(heading))
    return text[start:] if end is None else text[start : end.start()]


# -- tables, links ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tables.TABLES)
def test_a_table_is_the_codes_own(name: str) -> None:
    start, end = tables.between_marks(README, name)
    assert README[start:end] == tables.TABLES[name](), "run: python -m tests.support.tables"


def prose(text: str) -> str:
    """Without code, in which brackets are no links."""
    return re.sub(r"`[^`\n]+`", "", _FENCED.sub("", text))


def anchors(text: str) -> set[str]:
    """The names that the headings of a page get on GitHub."""
    headings = re.findall(r"^#+ (.*)$", _FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}


def links() -> Iterator[Any]:
    for page in PAGES:
        text = prose((ROOT / page).read_text("utf-8"))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" not in target:
                yield pytest.param(page, target, id=f"{page}:{target}")


@pytest.mark.parametrize(("page", "target"), list(links()))
def test_a_link_leads_somewhere(page: str, target: str) -> None:
    path, _, anchor = target.partition("#")
    file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
    assert file.exists()
    if anchor:
        assert anchor in anchors(file.read_text("utf-8"))


def test_the_links_are_found() -> None:
    assert len(list(links())) > 40


def test_every_command_is_named() -> None:
    for name in cli.commands:
        assert f"`{name}" in README, name


def commands() -> Iterator[Any]:
    """What the pages tell people to type; not what is left out with "…", or one of several."""
    for page in PAGES:
        text = (ROOT / page).read_text("utf-8")
        said = [line for block in blocks(text, "sh") for line in block.splitlines()]
        said += re.findall(r"`([^`\n]+)`", _FENCED.sub("", text))
        for line in said:
            found = re.search(r"(?<![\w./-])iam-auth-proxy( [a-z-][^|\n]*)?$", line.rstrip(')"'))
            if found is not None and not re.search(r"[…|&\[]", line):
                yield pytest.param(found[0], id=f"{page}: {found[0]}")


@pytest.mark.parametrize("line", list(commands()))
def test_a_command_can_be_typed(line: str) -> None:
    _, *words = shlex.split(line, comments=True)
    command: click.Command = cli
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    if command is cli:
        command = cli.commands["run"]
    if isinstance(command, click.Group):
        assert not words, f"{words[0]} is no command"
    elif words or "run" in line:
        # With the settings of the whole: click keeps what a command made of its first context.
        assert not command.make_context(line, words, **cli.context_settings).args


@pytest.mark.parametrize("name", ["user", "server", "key"])
def test_a_policy_is_quoted_as_it_is(name: str) -> None:
    policy = json.loads((ROOT / f"server_example/policies/{name}.json").read_text())
    quoted = [
        json.loads(block) for block in blocks(section(README, "## IAM and KMS policies"), "json")
    ]
    assert policy in quoted


def test_the_example_of_a_file_is_one(tmp_path: Path) -> None:
    (text,) = blocks(README, "toml")
    (tmp_path / "config.toml").write_text(text)
    settings = config.load({}, {}, [tmp_path / "config.toml"])
    assert [str(rule) for rule in settings.trust] == [
        "http://grafana.internal",
        "http://wiki.internal",
        "https://confidant.internal",
    ]
    assert settings.warnings == ()
    assert settings.assume_role_arn == tomllib.loads(text)["assume_role"]["arn"]


def test_the_three_lines_of_a_terminal() -> None:
    settings = config.load({"profile": "dev", "trust": ["http://grafana.internal"]}, {}, [])
    said = [
        where(["127.0.0.1:8080", "[::1]:8080"], settings),
        who(CallerIdentity("111122223333", ALICE, "AIDAEXAMPLEEXAMPLE"), settings),
        what_next("127.0.0.1:8080", settings),
    ]
    (shown,) = blocks(README, "console")
    assert shown.splitlines() == [
        "$ iam-auth-proxy --profile dev --trust http://grafana.internal",
        *said,
    ]


def test_the_exposure_that_is_stated(tmp_path: Path) -> None:
    """The score moves with systemd's version; the one that is named is what the number is of."""
    systemd = program("systemd-analyze")
    version = subprocess.run(
        [systemd, "--version"], capture_output=True, text=True, check=True
    ).stdout
    stated = re.findall(
        r"exposure\s+(\d\.\d)\s+\(of\s+10;[^)]*systemd\s+(\d+)\)", README + DEPLOYMENT
    )
    assert len(stated) == 2
    assert len(set(stated)) == 1
    done = subprocess.run(
        [systemd, "--user", "security", "--offline=true", "./iam-auth-proxy.service"],
        capture_output=True, text=True, check=True, cwd=ROOT / "systemd",
        env=base_env(XDG_RUNTIME_DIR=str(tmp_path)),
    )  # fmt: skip
    score = re.search(r"Overall exposure level for iam-auth-proxy.service: (\d\.\d)", done.stdout)
    assert score is not None
    if version.split()[1] == stated[0][1]:
        assert score[1] == stated[0][0]
    assert float(score[1]) < 3


# -- the mounting snippets -------------------------------------------------------------------------

SNIPPETS = {
    re.match(r"# (\w+)", block)[1].lower(): block  # type: ignore[index]  # each begins with a name
    for block in blocks(section(README, "## Mount it in your app"), "python")
}


def get(port: int, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/", headers={"Host": "app.test", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_there_is_a_snippet_for_each_framework() -> None:
    assert SNIPPETS.keys() == apps.FRAMEWORKS.keys()


@pytest.mark.parametrize("framework", apps.FRAMEWORKS)
def test_a_snippet_mounts_the_gate(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "AWS_ACCOUNT_ID": "111122223333",
        "KMS_KEY_ID": "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "SECRET_KEY": "6f1ed002ab5595859014ebf0951522d9a0a1b2c3d4e5f607",
        "IAM_AUTH_ORIGINS": "http://app.test",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    make_app, serve = apps.FRAMEWORKS[framework]
    if framework == "django":
        make_app(Gate.from_env())  # a project with settings, into which the snippet goes
    scope: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(SNIPPETS[framework], f"README.md, {framework}", "exec"), scope)
    with serve(scope.get("app") or scope["application"]) as port:
        status, _ = get(port)
        assert status == 401
        cookie = signed_in(Gate.from_env(), ALICE)
        assert get(port, Cookie=cookie) == (200, ALICE)


# -- the commands ----------------------------------------------------------------------------------


def run(script: str, env: dict[str, str]) -> Child:
    """A block as a shell of its own; its last line takes the shell's place, so it can be ended."""
    *before, last = script.strip().splitlines()
    return Child(["sh", "-ec", "\n".join([*before, f"exec {last}"])], env)


@pytest.mark.e2e
def test_the_quick_start(tmp_path: Path) -> None:
    chapter = section(README, "### Against the embedded AWS")
    aws_port, app_port, proxy_port = free_port(), free_port(), free_port()
    # Other ports and another file than a person's, who may be trying the same now.
    changes: list[tuple[str, str]] = [
        ("8080", str(proxy_port)),
        ("8081", str(app_port)),
        ("8082", str(aws_port)),
        (".venv/aws.env", str(tmp_path / "aws.env")),
        (". .venv/bin/activate", f"export PATH={Path(sys.executable).parent}:$PATH"),
    ]
    scripts = blocks(chapter, "sh")
    for old, new in changes:
        assert old in "".join(scripts)
        scripts = [script.replace(old, new) for script in scripts]
    local_aws, app, proxy, curl, secrets = scripts
    own = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    env = base_env(IAM_AUTH_PROXY_BIND=f"127.0.0.1:{proxy_port}", **own)
    with contextlib.ExitStack() as stack:
        # Of the time before: the embedded AWS has another key each time.
        trust = tmp_path / "iam-auth-proxy/trust.toml"
        trust.parent.mkdir(parents=True)
        trust.write_text(f'[[pin]]\norigin = "http://app.test"\nkey = "{OLD_KEY}"\n')
        started = []
        ready = ("embedded AWS on", "listening on", '"ready"')
        for script, said in zip((local_aws, app, proxy), ready, strict=True):
            started.append(stack.enter_context(run(script, env)))
            started[-1].wait_for(said)
        done, kept = (
            subprocess.run(["sh", "-ec", each], capture_output=True, text=True, env=env, check=True)
            for each in (curl, secrets)
        )
    assert kept.stdout == "hello\n"
    assert "signs from now on" in kept.stderr
    promised = re.search(r"answers `(ok arn:[^`]+)`", chapter)
    assert promised is not None
    said_by_all = "\n".join(child.output for child in started)
    assert done.stdout.strip() == promised[1], said_by_all


@pytest.mark.e2e
def test_the_app_of_a_real_account_starts(tmp_path: Path) -> None:
    script = blocks(section(README, "### Against a real account"), "sh")[1]
    for old, new in (
        ("10.0.0.5", "127.0.0.1"),
        ("PORT=8081", "PORT=0"),
        ("python3 -m venv .venv && .venv/bin/pip install .", ""),
        (".venv/bin/python", sys.executable),
    ):
        assert old in script
        script = script.replace(old, new)
    env = base_env(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}", PYTHONPATH=str(ROOT))
    with run(f"cd {tmp_path}\n{script}", env) as app:
        app.wait_for("listening on .* for http://example.internal")
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0


@pytest.fixture
def behind_nginx(tmp_path: Path) -> Iterator[tuple[Proxy, Callable[[], str], int]]:
    """The example behind nginx as docs/deployment.md has both; the proxy, nginx's log and port."""
    from iam_auth_proxy.local_aws import LocalAws
    from iam_auth_proxy.local_aws.ready import make_ready

    (conf,) = blocks(DEPLOYMENT, "nginx")
    front = next(block for block in blocks(DEPLOYMENT, "sh") if "IAM_AUTH_ORIGINS" in block)
    exports = dict(re.findall(r"^export (\w+)=(\S+)", front, re.MULTILINE))
    access_log = tmp_path / "access.log"
    nginx_port = free_port()
    with LocalAws() as aws:
        ready = make_ready(aws)
        env = base_env(
            **aws.env, **ready.server.env, **exports,
            AWS_ACCOUNT_ID=aws.account, KMS_KEY_ID=ready.key.arn, PORT="0",
            SECRET_KEY="6f1ed002ab5595859014ebf0951522d9a0a1b2c3d4e5f607",
        )  # fmt: skip
        with Child([sys.executable, "-m", "server_example"], env) as app:
            app_port = app.wait_for(r"listening on http://127\.0\.0\.1:(\d+)")[1]
            for old, new in (
                ("listen 80;", f"listen 127.0.0.1:{nginx_port};"),
                ("127.0.0.1:8082", f"127.0.0.1:{app_port}"),
                ("/var/log/nginx/app.log", str(access_log)),
            ):
                assert old in conf
                conf = conf.replace(old, new)
            trust = exports["IAM_AUTH_ORIGINS"]
            flags = ["--trust", trust, "--connect-to", f"app.internal:80:127.0.0.1:{nginx_port}"]
            user = base_env(**aws.env, **ready.user.env)
            with nginx(conf, tmp_path / "nginx", nginx_port), Proxy(*flags, env=user) as proxy:
                assert isinstance(proxy, Proxy)
                yield proxy, access_log.read_text, nginx_port


def get_metrics(proxy: Proxy) -> str:
    with urllib.request.urlopen(f"{proxy.url}/metrics", timeout=PATIENCE) as answer:
        text: str = answer.read().decode()
        return text


@pytest.mark.e2e
def test_an_app_behind_nginx(behind_nginx: tuple[Proxy, Callable[[], str], int]) -> None:
    proxy, access_log, port = behind_nginx
    argv = [program("curl"), "-sS", "-m", "30", "-L", "-b", "", "-x", proxy.url]
    done = subprocess.run(
        [*argv, "http://app.internal/check", "http://app.internal/auth/whoami"],
        capture_output=True, text=True, check=True, env=base_env(),
    )  # fmt: skip
    line, _, whoami = done.stdout.partition("\n")
    assert line == "ok arn:aws:iam::111122223333:user/example-user"
    assert json.loads(whoami)["origin"] == "http://app.internal"
    assert '"POST /auth"' in access_log()
    assert "token" not in access_log()

    metrics = get_metrics(proxy)
    for name in re.findall(r"`([a-z_]+)`", section(DEPLOYMENT, "## Metrics")):
        full = name if name.startswith("iam_auth_proxy") else f"iam_auth_proxy_{name}_total"
        assert f"# TYPE {full} " in metrics

    def direct(target: str, *more: str) -> str:
        shown = [program("curl"), "-sS", "-m", "30", "-o", "/dev/null", "-w", "%{http_code}", *more]
        where_to = ["-H", "Host: app.internal", f"http://127.0.0.1:{port}{target}"]
        done = subprocess.run(
            [*shown, *where_to], capture_output=True, text=True, check=True, env=base_env()
        )
        return done.stdout

    # The longest request line that the grammar has gets as far as the gate, which finds it
    # malformed (400); nginx would say 414.
    assert direct(f"/auth?token={'%2B' * 8192}&return_url={'%2F' * 2048}") == "400"
    # What a client says of itself counts for nothing.
    assert direct("/check", "-H", "X-Forwarded-Host: evil.test") == "401"
    assert direct("/check", "-H", "X-Forwarded-Proto: https") == "401"
