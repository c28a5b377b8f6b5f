"""The names of `import rollout`: chosen, imported when asked for, the functions of commands."""

import ast
import inspect
import json
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rollout
from rollout.cli.main import app
from tests import recorded
from tests.docs.pages import ROOT
from tests.lean import STORE

FUNCTIONS = [name for name in rollout.__all__ if name.islower()]


def shape_of(value):
    """Return the parameters of a function, optional ones with `=`, or the fields of a class."""
    if inspect.isfunction(value):
        parameters = inspect.signature(value).parameters.values()
        return [f"{each.name}{'' if each.default is each.empty else '='}" for each in parameters]
    if hasattr(value, "__dataclass_fields__"):
        return [field.name for field in fields(value)]
    return [*getattr(value, "__struct_fields__", ())]


def test_the_public_names_stay(snapshot):
    assert {name: shape_of(getattr(rollout, name)) for name in rollout.__all__} == snapshot


def test_each_function_says_what_it_returns_and_takes():
    for name in FUNCTIONS:
        function = getattr(rollout, name)
        assert function.__name__ == name
        assert function.__doc__.partition("\n")[0].endswith(".")
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty


def test_dir_has_all_names_and_others_are_refused():
    assert {*rollout.__all__} <= {*dir(rollout)}
    with pytest.raises(AttributeError, match="has no attribute 'replays'"):
        _ = rollout.replays


def test_checkers_and_readers_get_the_same_names():
    """Type checkers read the imports, readers the table: both name the same modules."""
    tree = ast.parse((ROOT / "rollout/__init__.py").read_text("utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    places = {alias.name: node.module for node in checked.body for alias in node.names}
    assert sorted(places) == sorted(rollout.__all__)
    for name, module in places.items():
        assert getattr(rollout, name) is getattr(sys.modules[module], name)


def test_the_contract_of_lint_is_about_every_module_of_the_library():
    """Of features: the one on kernel and engine is about the others."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    contracts = {each["name"]: each for each in tools["importlinter"]["contracts"]}
    (name,) = (name for name in contracts if name.startswith("The library runs on files"))
    modules = {getattr(rollout, name).__module__ for name in rollout.__all__}
    features = [module for module in modules if module.startswith("rollout.features.")]
    assert sorted(features) == contracts[name]["source_modules"]
    assert {*STORE} <= {*contracts[name]["forbidden_modules"]}


def test_no_name_is_a_module_of_the_package():
    modules = {path.stem for path in (ROOT / "rollout").iterdir()}
    assert modules & {*rollout.__all__} == set()


def test_import_of_the_package_imports_nothing_else_of_it():
    program = "import json, sys, rollout; print(json.dumps([*sys.modules]))"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert [name for name in json.loads(ran.stdout) if name.startswith("rollout")] == ["rollout"]


@pytest.mark.slow
def test_library_and_commands_write_the_same_ledger_and_plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recorded.write_records(tmp_path)
    files = ("predictions.csv", "decisions.csv")
    options = ["--predictions", files[0], "--decisions", files[1]]
    draft = run("init", *files, "--rollout", "ramps")
    assert rollout.draft_policy(*files, rollout="ramps") == draft
    Path("policy.yaml").write_text(draft)
    printed = run("plan", "policy.yaml", *options)
    run("replay", "policy.yaml", *options, "--out", "ran", "--salt", "ab" * 32)
    policy = rollout.load_policy("policy.yaml")
    history = rollout.read_records(policy, *files)
    replayed = rollout.replay(policy, history, salt=bytes.fromhex("ab" * 32))
    facts = rollout.write_report(replayed, Path("wrote"))
    assert f"{rollout.plan(policy, history)}\n" == printed
    for name in ("ledger.jsonl", "divergences.csv"):
        assert Path("wrote", name).read_bytes() == Path("ran", name).read_bytes()
    ran, wrote = (json.loads(Path(each, "report.json").read_text()) for each in ("ran", "wrote"))
    assert [name for name in ran if ran[name] != wrote[name]] == ["identity"]
    ran, wrote = ran["identity"], wrote["identity"]
    assert [name for name in ran if ran[name] != wrote[name]] == ["sources", "command"]
    assert ran["sources"][1:] == wrote["sources"]
    assert wrote["command"] == ""
    assert len(facts.stages) == 1
    page = Path("wrote/report.html").read_text("utf-8")
    assert "run the command there" not in page
    assert "run the command there" in Path("ran/report.html").read_text("utf-8")


def run(*words):
    """Return what a command prints."""
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_errors_of_files_are_of_one_base(tmp_path):
    path = tmp_path / "file.csv"
    path.write_text("case_key\nc1\n")
    policy = rollout.load_policy(ROOT / "examples/patrol/policy.yaml")
    for refused in (
        lambda: rollout.load_policy(path),
        lambda: rollout.read_records(policy, path, path),
        lambda: rollout.draft_policy(path, path),
    ):
        with pytest.raises(rollout.RolloutError):
            refused()
    assert rollout.verify_ledger(path).fault.startswith("line 1: ")


def test_a_draft_of_unreadable_rows_is_refused(tmp_path):
    recorded.write_records(tmp_path, cases=60)
    path = tmp_path / "decisions.csv"
    head, *rows = path.read_text().splitlines()
    cut = [row.replace("2027-", "20x7-") for row in rows[:20]]
    path.write_text("\n".join([head, *cut, *rows[20:]]))
    with pytest.raises(ValueError, match=r"33\.3.% of the rows can't be read"):
        rollout.draft_policy(tmp_path / "predictions.csv", path)
    assert "rollout: my-rollout" in rollout.draft_policy(
        tmp_path / "predictions.csv", path, allow_rejected=0.5
    )
