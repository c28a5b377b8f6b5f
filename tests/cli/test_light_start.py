"""`rollout --help` imports the table of commands alone; a command imports its own module."""

import json
import os
import re
import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from rollout.cli.database import COMMANDS as DATABASE_COMMANDS
from rollout.cli.main import COMMANDS, app
from rollout.features.ledger.cli import COMMANDS as LEDGER_COMMANDS
from rollout.terminal.command_table import load_command
from tests.api.light_replica import POLICY
from tests.docs.pages import ROOT
from tests.engine.ledger.golden import PATH

HEAVY = {"numpy", "polars", "scipy", "sqlalchemy", "alembic", "opening_hours", "jinja2"}
MOST_MODULES = 500  # a help page has 460 with what prints it; an engine has over a thousand
START = """
import json, sys
from rollout.cli.main import app
try:
    app(sys.argv[1:], prog_name="rollout")
except SystemExit as exit:
    peak = 0  # of `getrusage` it is the parent's, where that is larger
    if sys.platform == "linux":
        with open("/proc/self/status") as status:
            peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    print(json.dumps([exit.code, peak, *sys.modules]), file=sys.stderr)
"""
MOST_MEMORY = 47 * 1024  # kB, one of them for msgspec, in which records are declared


def started(*words, **environment):
    """Run a command in a process of its own; return its exit code and the imported modules."""
    code, _, modules = measured(*words, **environment)
    return code, modules


def measured(*words, **environment):
    """Return what `started` does, and before the modules the peak of memory in kB; 0 if unknown."""
    run = subprocess.run(
        [sys.executable, "-c", START, *words],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    code, peak, *modules = json.loads(run.stderr.splitlines()[-1])
    return code, peak, modules


def own(modules):
    return {name for name in modules if name.split(".")[0] in {"rollout", "api"}}


@pytest.mark.parametrize("words", [["--help"], [], ["no-such-command"]])
def test_without_a_command_only_the_table_is_imported(words):
    _, modules = started(*words)
    assert own(modules) == {
        "rollout",
        "rollout.cli",
        "rollout.cli.main",
        "rollout.terminal",
        "rollout.terminal.command_table",
    }
    assert HEAVY & set(modules) == set()


@pytest.mark.slow
def test_a_command_imports_no_other_command():
    code, modules = started("compare", "--help")
    commands = {f"rollout.{entry.source.partition(':')[0]}" for entry in COMMANDS.values()}
    assert code == 0
    assert own(modules) & commands == {"rollout.features.replay.cli"}


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["demo", "--list"],
        ["db", "--help"],
        ["ledger", "--help"],
        ["ledger", "verify", str(PATH)],
    ],
)
def test_what_needs_no_engine_imports_none(words):
    code, peak, modules = measured(*words)
    assert code == 0
    assert HEAVY & set(modules) == set()
    assert len(modules) < MOST_MODULES
    assert peak < MOST_MEMORY


PACKAGES = {
    "alembic",
    "fastapi",
    "httpx2",
    "jinja2",
    "narwhals",
    "numpy",
    "polars",
    "scipy",
    "zxcvbn",
}
PACKAGES |= {"argon2", "sqlalchemy.dialects.postgresql", "yaml"}
FRAMES = {"narwhals", "numpy", "polars", "scipy"}
NEEDS = {  # packages that may be imported, and the most modules of ours; a command a module
    "db current": (set(), 41),
    "db upgrade": (set(), 89),
    "report": (set(), 115),
    "baseline": (set(), 158),
    "approve": (set(), 160),
    "import": (set(), 158),
    "plant": (set(), 164),
    "what-if": ({"yaml"}, 173),
    "users list": (set(), 179),
    "stop": (set(), 199),
    "acknowledge": (set(), 199),
    "deliveries": (set(), 199),
    "ledger export": (set(), 199),
    "erase case": (set(), 205),
    "incidents": (set(), 204),
    "doctor": (set(), 212),
    "proposals": (set(), 209),
    "db backup": (set(), 219),
    "status": (set(), 219),
    "apply": ({"yaml"}, 227),
    "tick": (FRAMES, 250),
    "clean list": (FRAMES | {"yaml"}, 452),
    "training export": (FRAMES | {"yaml"}, 452),
}


@pytest.mark.slow
@pytest.mark.parametrize("words", NEEDS)
def test_a_command_with_a_database_imports_what_it_needs(words):
    code, modules = started(*words.split(), "--help")
    packages, most_modules = NEEDS[words]
    assert code == 0
    assert "rollout.data.database.session" in modules
    assert PACKAGES & set(modules) <= packages
    assert len(own(modules)) <= most_modules


@pytest.mark.slow
@pytest.mark.parametrize("words", ["replay", "compare", "init", "demo"])
def test_commands_on_files_need_no_package_of_the_extra_server(words):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = (re.match(r"[\w-]+", each)[0] for each in extras["optional-dependencies"]["server"])
    packages = {"argon2" if name == "argon2-cffi" else name.replace("-", "_") for name in names}
    assert {"sqlalchemy", "fastapi"} <= packages
    code, modules = started(*words.split(), "--help")
    assert (code, packages & set(modules)) == (0, set())


def test_each_module_of_commands_on_a_database_has_its_needs():
    tables = [("", COMMANDS), ("db ", DATABASE_COMMANDS), ("ledger ", LEDGER_COMMANDS)]
    entries = {f"{group}{name}": entry for group, table in tables for name, entry in table.items()}
    modules = {name: entry.source.partition(":")[0] for name, entry in entries.items()}
    without = {
        "cli.database",
        "features.demo.quickstart",
        "features.ledger.cli",
        "terminal.serve",
    }
    needed = {
        modules[name]
        for name, entry in entries.items()
        if " " in name or entry.needs_server or entry.extension
    }
    listed = {words if words in modules else words.partition(" ")[0] for words in NEEDS}
    assert {modules[name] for name in listed} == needed - without


FULL_COLLECTIONS = """
import gc
from rollout.terminal.command_table import load_command
from rollout.cli.main import COMMANDS
before = gc.get_stats()[2]["collections"]
load_command("stop", COMMANDS["stop"])
print(gc.get_stats()[2]["collections"] - before, gc.get_freeze_count(), gc.isenabled())
"""


@pytest.mark.slow
def test_imports_are_exempt_from_collections_of_garbage():
    command = [sys.executable, "-c", FULL_COLLECTIONS]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    collections, frozen, is_enabled = run.stdout.split()
    assert (collections, is_enabled) == ("0", "True")
    assert int(frozen) > 50_000  # what a stop imports


GARBAGE_AT_THE_END = """
import os
from rollout.terminal.command_table import load_command
from rollout.cli.main import COMMANDS
class Garbage:
    def __init__(self): self.itself = self
    def __del__(self, write=os.write): write(1, b"collected")
load_command("stop", COMMANDS["stop"])
Garbage()
"""


@pytest.mark.slow
def test_no_garbage_is_collected_when_a_command_ends():
    command = [sys.executable, "-c", GARBAGE_AT_THE_END]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


def test_completion_imports_the_table_alone():
    typed = {"_ROLLOUT_COMPLETE": "complete_bash", "COMP_WORDS": "rollout re", "COMP_CWORD": "1"}
    code, peak, modules = measured(**typed)
    assert code == 0
    assert not any(name.startswith(("rollout.features", "rollout.data")) for name in modules)
    assert HEAVY & set(modules) == set()
    assert peak < MOST_MEMORY


@pytest.mark.parametrize(
    ("name", "table"),
    [(name, table) for table in (COMMANDS, DATABASE_COMMANDS, LEDGER_COMMANDS) for name in table],
)
def test_a_table_has_the_first_paragraph_of_each_help(name, table):
    if not table[name].is_available():
        pytest.skip("the extra `server` is not installed")
    first = load_command(name, table[name]).help.partition("\n\n")[0]
    assert table[name].summary == " ".join(first.split())


def test_a_misspelt_command_is_answered_with_near_ones():
    said = CliRunner().invoke(app, ["replya"])
    assert said.exit_code == 2
    assert "Did you mean 'replay'" in " ".join(said.output.replace("│", " ").split())


def test_commands_on_a_database_need_the_extra(monkeypatch):
    monkeypatch.setattr("rollout.terminal.command_table.has_server_packages", lambda: False)
    offered = {name for name, entry in COMMANDS.items() if entry.is_available()}
    assert {"demo", "replay", "ledger", "clean"} <= offered
    assert {"apply", "db", "serve", "users"} & offered == set()


def test_completion_lists_commands_from_the_table():
    root = typer.main.get_command(app)
    with root.make_context("rollout", ["plan"], resilient_parsing=True) as context:
        offered = {item.value: item.help for item in root.shell_complete(context, "re")}
    assert set(offered) == {"replay", "report", "reject", "resume", "retire"}
    assert offered["retire"].startswith("Retire a model version")


PREDICTIONS = """case_key,site,occurred_at,at,model_version,parcel
a,dock,{at},{at},v1,sound
"""
DECISIONS = """case_key,at,reviewer,source,parcel
a,{at},bo,assisted,sound
"""


@pytest.mark.slow
def test_commands_on_few_records_import_no_engine_of_a_replay(tmp_path):
    now = datetime.now(UTC)
    occurred = (now - timedelta(minutes=30)).isoformat()
    predictions, decisions = (text.format(at=occurred) for text in (PREDICTIONS, DECISIONS))
    texts = {"policy.yaml": POLICY, "p.csv": predictions, "d.csv": decisions}
    paths = {name: str(tmp_path / name) for name in texts}
    for name, text in texts.items():
        Path(paths[name]).write_text(text, encoding="utf-8")
    database = {"ROLLOUT_DATABASE_URL": f"sqlite:///{tmp_path / 'rollout.db'}"}
    started("db", "upgrade", **database)
    at = (now - timedelta(days=1)).isoformat()
    code, _ = started("apply", paths["policy.yaml"], "--by", "ana", "--at", at, **database)
    assert code == 0
    files = ["--predictions", paths["p.csv"], "--decisions", paths["d.csv"], "--by", "ana"]
    code, imported = started("import", "light", *files, **database)
    assert code == 0
    assert {"scipy", "rollout.engine.slots.engine"} & set(imported) == set()
    assert started("tick", "light", **database)[0] == 0
    code, imported = started("status", "light", **database)
    assert code == 0
    assert "numpy" in imported  # it has read evidence
    assert {"narwhals", "polars", "rollout.engine.slots.engine"} & set(imported) == set()
