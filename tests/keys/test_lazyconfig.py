"""lazycred's configuration: which one counts, and which is not to be trusted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iam_auth_proxy.errors import ConfigError
from iam_auth_proxy.keys import lazyconfig
from iam_auth_proxy.keys.build import lazycred_place, parse_place
from iam_auth_proxy.keys.lazyconfig import LazyConfig

# As the original's documentation prints it, trailing comma and all.
SAMPLE = """{
    "region": "us-east-1",
    "s3_path": "eFart/credentials/",
    "key_alias": "eFart-key",
}
"""
ENVIRON = {
    "LAZYCRED_S3_PATH": "env-bucket/x/",
    "LAZYCRED_KEY_ALIAS": "env-key",
    "AWS_DEFAULT_REGION": "eu-west-1",
}
INLINE = {"s3_path": "inline-bucket/", "key_alias": "inline-key", "region": "us-east-1"}


class Folders:
    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.cwd = self.home / "project" / "deep"
        self.cwd.mkdir(parents=True)

    def write(self, folder: Path, text: str = SAMPLE, mode: int = 0o600) -> Path:
        path = folder / ".lazycred"
        path.write_text(text)
        path.chmod(mode)
        return path

    def find(self, **more: object) -> LazyConfig:
        given: dict[str, object] = {"cwd": self.cwd, "home": self.home, "environ": ENVIRON}
        return lazyconfig.find(**(given | more))  # type: ignore[arg-type]  # of the right types


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def test_the_sample_of_the_documentation(folders: Folders) -> None:
    """L9: the original refuses its own sample, and then does not look at the environment either."""
    path = folders.write(folders.cwd)
    found = folders.find()
    assert found == LazyConfig("eFart/credentials/", "alias/eFart-key", "us-east-1", str(path))


def test_the_order(folders: Folders) -> None:
    """Inline, the nearest file, home, the environment; L1, L2: asked anew each time."""
    assert folders.find().s3_path == "env-bucket/x/"
    folders.write(folders.home, SAMPLE.replace("eFart/", "home/"))
    assert folders.find().s3_path == "home/credentials/"
    folders.write(folders.cwd.parent, SAMPLE.replace("eFart/", "project/"))
    assert folders.find().s3_path == "project/credentials/"
    folders.write(folders.cwd, SAMPLE.replace("eFart/", "deep/"))
    assert folders.find().s3_path == "deep/credentials/"
    assert folders.find(inline=INLINE).s3_path == "inline-bucket/"
    (folders.cwd / ".lazycred").unlink()
    assert folders.find().s3_path == "project/credentials/"


def test_a_source_counts_as_a_whole(folders: Folders) -> None:
    folders.write(folders.cwd, '{"s3_path": "b/"}')
    with pytest.raises(ConfigError) as caught:
        folders.find()
    assert len(caught.value.problems) == 2
    with pytest.raises(ConfigError, match="LAZYCRED_KEY_ALIAS is missing"):
        lazyconfig.find(cwd=folders.cwd.parent, home=folders.home, environ={})


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", '{"a" "b"}', "{,}", "[" * 9999, '{"s3_path": 1}', "\ufffd"]
)
def test_a_file_that_cannot_be_used_is_an_error(folders: Folders, text: str) -> None:
    folders.write(folders.cwd, text)
    with pytest.raises(ConfigError):
        folders.find()


def test_only_trailing_commas_are_let_through(folders: Folders) -> None:
    text = '{"s3_path": "b/,}\\",]",\n "key_alias": "k" , "region": "r" ,\n}'
    folders.write(folders.cwd, text)
    assert folders.find().s3_path == 'b/,}",]'


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_file_that_somebody_planted(folders: Folders) -> None:
    """L10: the original takes bucket and key from it, and sends the secrets there."""
    os.chown(folders.write(folders.cwd), 12345, -1)
    with pytest.raises(ConfigError, match="somebody else's"):
        folders.find()


def test_folders_above_ones_own_are_not_searched(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L10: /tmp/.lazycred, for whoever works in a folder of his own below /tmp."""
    folders.write(folders.home)
    folders.home.chmod(0o777)
    found = folders.find(home=folders.cwd)
    assert found.source == "the environment"
    folders.home.chmod(0o755)
    assert folders.find(home=folders.cwd).source == str(folders.home / ".lazycred")
    if os.getuid() == 0:
        os.chown(folders.home, 12345, -1)
        assert folders.find(home=folders.cwd).source == "the environment"


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write(folders: Folders, mode: int) -> None:
    folders.write(folders.cwd, mode=mode)
    with pytest.raises(ConfigError, match="chmod go-w"):
        folders.find()


def test_what_is_no_file(folders: Folders) -> None:
    os.mkfifo(folders.cwd / ".lazycred", 0o600)
    with pytest.raises(ConfigError, match="not a file"):
        folders.find()
    (folders.cwd / ".lazycred").unlink()
    (folders.cwd / ".lazycred").mkdir()
    with pytest.raises(ConfigError, match="not a file"):
        folders.find()


@pytest.mark.parametrize(
    ("alias", "key"),
    [
        ("eFart-key", "alias/eFart-key"),
        ("alias/eFart-key", "alias/eFart-key"),
        (
            "arn:aws:kms:eu-south-1:111122223333:alias/x",
            "arn:aws:kms:eu-south-1:111122223333:alias/x",
        ),
    ],
)
def test_keys(alias: str, key: str) -> None:
    """L12, L13: any region's, and ARNs."""
    assert lazyconfig.find(INLINE | {"key_alias": alias}).key == key


def test_places() -> None:
    """L7, L8: a bucket alone is its root; a prefix stands in front as it is, as in the original."""
    for s3_path, bucket, prefix in (
        ("bucket/credentials/", "bucket", "credentials/"),
        ("bucket/", "bucket", ""),
        ("bucket", "bucket", ""),
        ("bucket/creds", "bucket", "creds"),
        ("eFart/credentials/", "eFart", "credentials/"),
    ):
        found = lazycred_place(LazyConfig(s3_path, "alias/k", "eu-west-1", "inline"))
        assert (found.bucket, found.prefix) == (bucket, prefix)
    with pytest.raises(ConfigError):
        lazycred_place(LazyConfig("/x", "alias/k", "eu-west-1", "inline"))


def test_places_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("s3://bucket/a/b", "s3://bucket/a/b/"):
        place = parse_place(text)
        assert (place.name, place.bucket, place.prefix) == ("s3://bucket/a/b", "bucket", "a/b/")
    assert parse_place("s3://bucket").prefix == ""
    monkeypatch.chdir(tmp_path)
    for text in ("store", "./store", f"file:{tmp_path}/store", f"{tmp_path}/x/../store"):
        assert parse_place(text).name == f"file:{tmp_path}/store"
    for text in ("", "file:", "s3://", "s3://B", "s3://bucket/a//b", "http://x", "s3://bucket/a b"):
        with pytest.raises(ConfigError):
            parse_place(text)
