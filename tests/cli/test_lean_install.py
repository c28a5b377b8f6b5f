"""Commands on files run in an install without extras, which has no package of the service."""

import json

import pytest

from tests.docs.pages import ROOT
from tests.lean import OPTIONAL, run_lean

pytestmark = pytest.mark.slow

COMMANDS = """
from rollout.cli.main import app
for words in sys.stdin.read().splitlines():
    try:
        app(words.split("\\t"), prog_name="rollout")
    except SystemExit as exit:
        print(f"{words}: exit {exit.code}", file=sys.stderr)
"""
PATROL = ROOT / "examples/patrol"
FILES = [f"{kind}={PATROL}/records/{kind}.csv.gz" for kind in ("predictions", "decisions", "cases")]
PAIRS = "human,model\n" + "sound,sound\nbroken,broken\nsound,broken\n" * 20


def options(*names):
    """Return the options of the patrol's files: `--predictions FILE …`."""
    paths = dict(text.split("=") for text in FILES)
    return [part for name in names for part in (f"--{name}", paths[name])]


@pytest.mark.slow
def test_each_command_on_files_runs_without_extras(tmp_path):
    (tmp_path / "pairs.csv").write_text(PAIRS)
    policy, out = str(PATROL / "policy.yaml"), str(tmp_path / "out")
    records = options("predictions", "decisions", "cases")
    lines = [
        ["replay", policy, *records, "--out", out],
        ["ledger", "verify", f"{out}/ledger.jsonl"],
        ["ledger", "seal", f"{out}/report.json"],
        ["plan", "--help"],
        ["plan", policy],
        ["plan", policy, *records],
        ["compare", str(tmp_path / "pairs.csv")],
        ["init", *records[1:4:2], *records[4:]],
    ]
    ran = run_lean(COMMANDS, lines=lines)
    assert ran.stderr.count(": exit 0") == len(lines), ran.stderr
    assert f"{out}/ledger.jsonl: " in ran.stdout
    for text in ("Plan of patrol", "pairs agree", "rollout: my-rollout"):
        assert text in ran.stdout


def test_what_needs_a_package_says_how_to_install_it():
    signed = ["ledger", "verify", "ledger.jsonl", "--checkpoint", "heads", "--public-key", "ab"]
    ran = run_lean(COMMANDS, lines=[["serve"], ["ledger", "create-key", "key"], signed])
    assert ran.stderr.count(": exit 2") == 3
    assert "Traceback" not in ran.stderr
    assert "--checkpoint needs more packages: pip install" in ran.stderr


IMPORT_ALL = """
import json
from importlib import import_module
for name in sys.argv[1:]:
    import_module(name)
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.slow
def test_all_of_kernel_and_engine_is_imported_without_extras():
    files = [path for name in ("kernel", "engine") for path in ROOT.glob(f"rollout/{name}/**/*.py")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    ran = run_lean(IMPORT_ALL, *(name.removesuffix(".__init__") for name in names))
    assert ran.returncode == 0, ran.stderr
    own = {name for name in json.loads(ran.stdout) if name.startswith("rollout.")}
    assert {name.split(".")[1] for name in own} == {"kernel", "engine"}


LATE = {  # imported when a database, a channel or a provider asks for them
    "api.oidc_provider": "authlib",
    "rollout.data.database.postgresql_connections": "psycopg",
}


@pytest.mark.slow
def test_the_demo_imports_no_driver_and_no_provider():
    files = [path for name in ("rollout", "api") for path in ROOT.glob(f"{name}/**/*.py")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    names = {name.removesuffix(".__init__") for name in names if not name.endswith("__main__")}
    ran = run_lean(IMPORT_ALL, *sorted(names - LATE.keys()), missing=OPTIONAL)
    assert ran.returncode == 0, ran.stderr
    for name, package in LATE.items():
        ran = run_lean(IMPORT_ALL, name, missing=OPTIONAL)
        assert f"No module named '{package}" in ran.stderr


def test_the_block_hides_the_packages_of_the_service():
    ran = run_lean("import sqlalchemy")
    assert "ModuleNotFoundError: No module named 'sqlalchemy'" in ran.stderr
    ran = run_lean("import rollout.data.tables")
    assert "ModuleNotFoundError: No module named 'rollout.data'" in ran.stderr
