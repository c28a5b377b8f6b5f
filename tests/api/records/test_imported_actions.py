"""Actions of a file are judged by their permits, as those that clients send."""

import csv
import json
from datetime import datetime

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from rollout.cli.main import app as commands
from rollout.data.tables.tables import actions
from rollout.engine.files.mapped_rows import RecordError
from rollout.engine.files.parse import ActionItem
from rollout.features.records.record_import import (
    ACTION_COLUMNS,
    ACTION_NAMES,
    OPTIONAL_ACTION_COLUMNS,
    import_actions,
    read_action_file,
)
from rollout.kernel.facts import NO_PERMIT, OTHER_ACTION, Trigger
from rollout.live.rollout_state import load_rollout_state
from tests.api.field_box import request_permit, steady
from tests.data.databases import on_sqlite
from tests.factories import NOON
from tests.features import bear_field as field

__all__ = ["steady"]
BEAR = {"answers": {"alarm": "bear"}}


class AtNoon(datetime):
    @classmethod
    def now(cls, _zone):
        return NOON


def row(key, permit="", by="model", **more):
    done = {"case_key": key, "lever": "alarm", "action": "siren", "by": by}
    return done | {"at": NOON.isoformat(), "model_version": "v1", "permit": permit} | more


def write(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def file(database, client, tmp_path):
    field.set_up_field(database)
    field.widen(database, ("creek", "day"))
    permits = {key: request_permit(client, key, prediction=BEAR) for key in ("c1", "c2")}
    rows = [row("c1", permits["c1"]), row("c2", permits["c2"], action="nothing")]
    rows += [row("c3", by="person", model_version=""), row("c4")]
    return write(tmp_path / "actions.csv", rows)


def judged(database):
    with database.begin_read() as transaction:
        found = transaction.execute(select(actions).order_by(actions.c.case_id)).all()
        scope = load_rollout_state(transaction, "bears").scope
    incidents = [(i.about, i.trigger) for i in scope.open_incidents.values()]
    return [(each.authorization, each.permit_kind) for each in found], incidents


@pytest.mark.slow
def test_actions_of_a_file_are_judged_and_a_repeat_changes_nothing(database, file):
    with database.begin_read() as transaction:
        policy = load_rollout_state(transaction, "bears").policy
    action_file = read_action_file(file, policy, NOON)
    for counts in ({"accepted": 4, "unauthorized": 2}, {"duplicate": 4}):
        assert +import_actions(database, "bears", action_file, NOON) == counts
        found, incidents = judged(database)
        assert found == [
            ("authorized", "bound"),
            ("unauthorized", "bound"),
            ("not_required", None),
            ("unauthorized", None),
        ]
        assert incidents == [("c2", Trigger(OTHER_ACTION, {})), ("c4", Trigger(NO_PERMIT, {}))]


@on_sqlite
def test_the_command_imports_predictions_first_and_names_the_file(url, file, tmp_path, monkeypatch):
    monkeypatch.setenv("ROLLOUT_DATABASE_URL", url)
    monkeypatch.setattr("rollout.features.records.cli.datetime", AtNoon)
    of = {"case_key": "c9", "site": "creek", "occurred_at": NOON.isoformat()}
    said = write(tmp_path / "p.csv", [of | {"model_version": "v1", "alarm": "bear"}])
    decided = write(tmp_path / "d.csv", [of | {"reviewer": "rae", "alarm": "bear"}])
    words = f"import bears --predictions {said} --decisions {decided} --by ana --json --actions"
    found = CliRunner().invoke(commands, [*words.split(), str(file)])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["action"] == {"accepted": 4, "unauthorized": 2}


@on_sqlite
@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"case_key": "c1"}], "lever: missing"),
        ([row("c1", weather="fog")], "weather: unknown"),
        ([row("c1"), row("c2", at="at noon")], "actions.csv:3: action: 'at noon' is no time"),
        ([row("c1", model_version="")], "names its `version`"),
        ([row("c1", revision="first")], "revision"),
        ([row("c1", revision="9" * 5000)], "revision"),
    ],
)
def test_what_can_not_be_read_names_its_row_and_nothing_is_stored(database, tmp_path, rows, reason):
    field.set_up_field(database)
    with database.begin_read() as transaction:
        policy = load_rollout_state(transaction, "bears").policy
    with pytest.raises(RecordError) as told:
        read_action_file(write(tmp_path / "actions.csv", rows), policy, NOON)
    assert reason in str(told.value)


def test_a_file_has_the_columns_of_a_sent_action():
    names = {
        ACTION_NAMES.get(column, column) for column in (*ACTION_COLUMNS, *OPTIONAL_ACTION_COLUMNS)
    }
    assert names == ActionItem.__annotations__.keys() - {"kind"}
