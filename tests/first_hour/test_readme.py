"""The README's commands and one's own files, as processes in an empty home."""

import re
import shutil
import sys
from datetime import UTC, datetime

import pytest

from tests import recorded
from tests.docs.pages import ROOT, text_of, typed
from tests.first_hour.terminals import terminals_in
from tests.first_hour.test_tutorial import free_port
from tests.ledger_verifier import FILE

LEDGER = "rollout-demo/ledger.jsonl"
RUNS_ON = re.compile(r"rollout (quickstart|simulate|serve|demo --serve)\b")
"""Commands that run until Ctrl-C: test_tutorial.py and the tests of the demo try them."""


def recipe_of(name):
    """Return the commands that `make NAME` runs, without the folder of the environment."""
    found = re.search(rf"^{name}:.*\n((?:\t.+\n)+)", text_of("Makefile"), re.MULTILINE)
    commands = [line.removeprefix("\t$(BIN)/") for line in found[1].splitlines()]
    python = f"PYTHONPATH={ROOT} {sys.executable} "
    return [re.sub("^python ", python, command) for command in commands]


@pytest.fixture
def terminals(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "START", datetime(2026, 9, 2, tzinfo=UTC))
    with terminals_in(tmp_path) as opened:
        recorded.write_records(opened.folder)
        yield opened


def test_the_readmes_commands_work_in_an_empty_home(terminals):
    assert "make demo" in text_of("README.md")
    lines = [one.line for one in typed("README.md") if not RUNS_ON.match(one.line)]
    for command in [*recipe_of("demo"), *lines]:
        terminals.run("1", command)
    written = {path.name for path in (terminals.folder / "rollout-demo").iterdir()}
    (prepared,) = (name for name in written if name.startswith("live-history-mail-room-"))
    assert written - {prepared} == {"report.html", "report.json", "ledger.jsonl", "divergences.csv"}
    shutil.copy(FILE, terminals.folder)
    verified = terminals.run("1", f"{sys.executable} verify_ledger.py {LEDGER}")
    (rows,) = re.findall(r"^mail-room: (\d+) rows, head ", verified[0])
    assert f"ledger.jsonl: {rows} entries, intact" in text_of("docs/how-to/audit.md")
    assert "no differences" in verified


@pytest.mark.enable_socket  # to find a free port
def test_a_policy_drafted_from_own_files_goes_live_in_an_empty_folder(terminals):
    terminals.run("1", "rollout init predictions.csv decisions.csv --rollout ramps > policy.yaml")
    terminals.run("1", "mkdir live && mv policy.yaml live/")
    port = free_port()
    service = terminals.start(
        "1", f"sh -c 'cd live && rollout quickstart policy.yaml --port {port}'"
    )
    service.wait_until(lambda lines: any("rollout is serving" in line for line in lines))
    said = terminals.run("2", "cd live && rollout simulate policy.yaml --for 4s")
    assert "ramp-a is in shadow" in said[1]
    sent = int(re.match(r"Sent (\d+) cases", said[-1])[1])
    assert sent > 0
    terminals.run("2", ". rollout-quickstart/keys.env")
    status = terminals.run("2", "ROLLOUT_API_KEY=$ANA_KEY rollout status ramps")
    assert status[0].startswith("ramps: policy 1")
    assert any("ramp-a · always: shadow" in line for line in status)
