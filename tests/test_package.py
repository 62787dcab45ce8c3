"""sdist and wheel build, hold what they should, and the wheel installs into a clean environment."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from iam_auth_proxy import __version__
from tests.support.processes import ROOT

pytestmark = pytest.mark.e2e


def run(*argv: str | Path) -> str:
    done = subprocess.run(
        [str(arg) for arg in argv], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"iam_auth_proxy-{__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"iam_auth_proxy", info}
    assert "iam_auth_proxy/py.typed" in names
    assert "iam_auth_proxy/proxy/pages/stop.html" in names
    assert "iam_auth_proxy/systemd/iam-auth-proxy.service" in names
    assert "iam_auth_proxy/systemd/iam-auth-proxy.socket" in names
    assert f"{info}/licenses/LICENSE" in names


def test_the_sdist_is_enough_to_test_and_to_read(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = ["Makefile", "constraints.txt", "tests/run", "server_example/app.py", ".ci/setup"]
    assert not [name for name in [*wanted, "docs/protocol.md", "LICENSE"] if name not in names]


def test_the_wheel_installs_into_a_clean_environment(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "venv")
    binaries = tmp_path / "venv" / "bin"
    # Compiling all of it would take longer than what is looked at.
    pip = (sys.executable, "-m", "pip", "--python", binaries / "python", "install", "-q")
    run(*pip, "--no-compile", "-c", ROOT / "constraints.txt", wheel)
    assert __version__ in run(binaries / "iam-auth-proxy", "--version")
    # Everything a start needs is there without any extra.
    run(
        binaries / "python",
        "-I",
        "-c",
        "import iam_auth_proxy.proxy.commands.daemon, iam_auth_proxy.demo",
    )
    run(binaries / "python", "-I", "-c", "from iam_auth_proxy.server import Gate")
    units = "from iam_auth_proxy.cli.units import *; assert packaged(SERVICE) and packaged(SOCKET)"
    run(binaries / "python", "-I", "-c", units)
