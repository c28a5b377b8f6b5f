"""A name that no database takes is one item's fault, whatever door it came in by."""

import os
import secrets
import subprocess
import sys

import pytest

from rollout.data.records.records import RecordStatus, RecordStore
from rollout.engine.records.records import Action, Case, Decision, Prediction
from rollout.live.rollout_state import load_rollout_state
from tests.factories import NOON
from tests.features import bear_field as field


@pytest.mark.parametrize(
    "name", ["v\0", "v\ud800", secrets.token_hex(2_000)], ids=["nul", "half a letter", "long"]
)
@pytest.mark.parametrize("kind", ["prediction", "decision", "action", "window", "episode"])
def test_a_name_in_a_key_that_can_not_be_stored_is_rejected_alone(database, kind, name):
    field.set_up_field(database)
    odd = {
        "prediction": Prediction(key="a", version=name, answers={"alarm": "bear"}),
        "decision": Decision(
            key="a", reviewer=name, answers={"alarm": "bear"}, claims="blind", exposure="blind"
        ),
        "action": Action(key="a", lever=name, action="x", by="person", at=NOON, permission=""),
        "window": Case(key="b", site="creek", occurred_at=NOON, window=name),
        "episode": Case(key="b", site="creek", occurred_at=NOON, window="day", episode=name),
    }
    case = Case(key="a", site="creek", occurred_at=NOON, window="day")
    with database.begin_write() as transaction:
        store = RecordStore(transaction, load_rollout_state(transaction, field.NAME).rollout)
        kept = store.store([case, odd[kind]], received_at=NOON)
    assert [answer.status for answer in kept.results] == [
        RecordStatus.ACCEPTED,
        RecordStatus.REJECTED,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v\0x", secrets.token_hex(2_000)], ids=["nul", "long"])
def test_an_import_with_such_names_stores_the_other_rows(database, url, tmp_path, name):
    """PostgreSQL refused the whole import, with a traceback: it indexes names of versions."""
    field.set_up_field(database)
    at = NOON.isoformat()
    files = {
        "predictions": [
            "case_key,model_version,alarm,at",
            f"a,v1,bear,{at}",
            f"b,{name},bear,{at}",
        ],
        "decisions": ["case_key,reviewer,alarm,at", f"a,ana,bear,{at}", f"b,r{name},bear,{at}"],
        "cases": ["case_key,site,occurred_at", f"a,creek,{at}", f"b,creek,{at}"],
    }
    options = []
    for kind, lines in files.items():
        path = tmp_path / f"{kind}.csv"
        path.write_text("\n".join(lines) + "\n")
        options += [f"--{kind}", str(path)]
    command = [sys.executable, "-m", "rollout", "import", field.NAME, *options, "--by", "ana"]
    done = subprocess.run(
        command,
        env={**os.environ, "ROLLOUT_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cases: 2 accepted" in done.stdout
    assert "decisions: 1 accepted, 1 rejected" in done.stdout
    assert "predictions: 1 accepted, 1 rejected" in done.stdout
