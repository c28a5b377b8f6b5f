"""The wheel is built without a network, and a bare environment decides with it."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile

import pytest

from tests.client.edge_clients import BEFORE
from tests.client.test_bare_client import FOLDER
from tests.docs.pages import ROOT

DECIDES = """
import json, sys
from datetime import datetime
from rollout_client import EdgeClient
import rollout_client.asynchronous, rollout_client.connection, rollout_client.spool
import rollout_client.uploads
body = json.load(open(sys.argv[1]))
client = EdgeClient("creek", lambda head: body)
client.renew()
at = datetime.fromisoformat(body["issued_at"])
print(*[client.decide("creek", at, version, "k9").decider for version in ("v1", "v2")])
print(rollout_client.__file__)
"""


def run(*command, **more):
    """Run a command in an environment without this repository's packages."""
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env=env,
        check=False,
        **more,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_licence_is_that_of_the_service():
    assert (FOLDER / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.slow
def test_a_wheel_decides_in_a_bare_environment(tmp_path):
    source, bare = tmp_path / "source", tmp_path / "bare"
    shutil.copytree(FOLDER, source, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=source)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(bare, with_pip=False, symlinks=True)
    (packages,) = bare.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {
        "rollout_client",
        "rollout_client-0.1.0.dist-info",
    }
    assert "rollout_client/py.typed" in names
    assert "rollout_client-0.1.0.dist-info/licenses/LICENSE" in names
    (tmp_path / "scope.json").write_text(json.dumps(BEFORE), encoding="utf-8")
    said = run(bare / "bin" / "python", "-I", "-c", DECIDES, tmp_path / "scope.json").splitlines()
    assert (said[0], said[1].startswith(str(packages))) == ("model human", True)
