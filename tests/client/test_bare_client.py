"""The client library stands alone: small, quick to import, with the standard library only."""

import ast
import json
import os
import subprocess
import sys
import tomllib

import pytest

from tests.client.edge_clients import BEFORE
from tests.docs.pages import ROOT
from tests.factories import HOUR, NOON

FOLDER = ROOT / "clients" / "python"
PACKAGE = FOLDER / "rollout_client"
MAX_INSTALLED_BYTES = 240_000  # sources and bytecode
MAX_MODULES = 72
SLOW_TO_IMPORT = (
    *("asyncio", "urllib.request", "http.client", "ssl", "email", "sqlite3"),
    *("dataclasses", "inspect", "ast"),
)


def run_bare(code, **variables):
    """Run code in a Python that has nothing but its standard library and this package."""
    path = f"import sys; sys.path.append({str(FOLDER)!r})\n"
    command = [sys.executable, "-I", "-S", "-B", "-c", path + code]
    env = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_imports_nothing_but_the_standard_library_and_itself():
    names = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names.add(node.module.partition(".")[0])
    assert names - sys.stdlib_module_names == {"rollout_client"}


def test_nothing_of_the_service_imports_it():
    for folder in ("rollout", "api"):
        for path in (ROOT / folder).rglob("*.py"):
            assert "rollout_client" not in path.read_text(encoding="utf-8"), path


@pytest.mark.slow
def test_an_import_loads_few_modules_and_none_from_elsewhere():
    code = """
before = set(sys.modules)
import rollout_client
print(*sorted(set(sys.modules) - before))
"""
    loaded = run_bare(code).split()
    assert {name.partition(".")[0] for name in loaded} <= sys.stdlib_module_names | {
        "rollout_client"
    }
    assert [name for name in SLOW_TO_IMPORT if name in loaded] == []
    assert len(loaded) <= MAX_MODULES


def test_it_is_small_once_it_is_installed_and_compiled(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "-o", "0", str(PACKAGE)],
        env={**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)},
        check=True,
    )
    # the compiling process compiles its own modules into this folder, too
    compiled = [path for path in tmp_path.rglob("*.pyc") if path.parent.name == PACKAGE.name]
    sources = [path for path in PACKAGE.rglob("*") if path.suffix in {".py", ".typed"}]
    assert len(compiled) == len([path for path in sources if path.suffix == ".py"])
    size = sum(path.stat().st_size for path in (*compiled, *sources))
    assert 10_000 < size <= MAX_INSTALLED_BYTES


@pytest.mark.slow
def test_without_anything_else_it_decides(tmp_path):
    (tmp_path / "scope.json").write_text(json.dumps(BEFORE), encoding="utf-8")
    code = f"""
import json
from datetime import datetime
from rollout_client import EdgeClient
from rollout_client.leases import ClockReading

class Still:
    def read(self):
        return ClockReading(100.0, datetime.fromisoformat({(NOON + HOUR).isoformat()!r}))
    def read_seconds(self):
        return 100.0, self.read().wall.timestamp()

body = json.load(open({str(tmp_path / "scope.json")!r}))
client = EdgeClient("creek", lambda head: body, Still())
client.renew()
at = datetime.fromisoformat(body["issued_at"])
print(*[client.decide("creek", at, version, "k9").decider for version in ("v1", "v2")])
"""
    assert run_bare(code) == "model human\n"


def test_the_distribution_needs_nothing():
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (project["name"], project["dependencies"]) == ("rollout-client", [])
    assert "optional-dependencies" not in project
