"""How the live demo's commands start, without playing it."""

import gc
import sys

import pytest
from typer.testing import CliRunner

from api.demo.__main__ import find_command
from rollout.cli.main import app
from rollout.features.demo import cli


@pytest.mark.parametrize("error", [None, OSError("port 8000 is in use")])
def test_no_garbage_is_collected_until_the_live_demo_serves(monkeypatch, tmp_path, error):
    """Imports and ten thousands of cases made collections a tenth of each start."""
    collecting = []

    def play(*_, **_options):
        collecting.append(gc.isenabled())
        if error:
            raise error

    def load(name):
        collecting.append(gc.isenabled())
        return {"demo-live": play}[name]

    monkeypatch.setattr(cli, "load_service_command", load)
    CliRunner().invoke(app, ["demo", "--serve", "--out", str(tmp_path)])
    assert collecting == [False, False]
    assert gc.isenabled()


@pytest.fixture
def programs(tmp_path):
    """Return the folder of an environment's programs."""
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "rollout").touch(mode=0o755)
    return folder


def test_the_command_is_named_as_a_newcomer_can_paste_it(programs, tmp_path, monkeypatch):
    """`make demo` does not activate the environment."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_command(programs, tmp_path) == (".venv/bin/rollout",)
    assert find_command(programs, programs / "elsewhere") == (str(programs / "rollout"),)


def test_the_command_on_the_path_is_named_by_itself(programs, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(programs))
    assert find_command(programs, tmp_path) == ("rollout",)


def test_another_rollout_on_the_path_is_not_named(programs, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    (other / "rollout").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(other))
    assert find_command(programs, tmp_path) == (".venv/bin/rollout",)


def test_without_a_program_the_module_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_command(tmp_path, tmp_path) == (sys.executable, "-m", "rollout")
