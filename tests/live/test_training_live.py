"""Training rows of a live rollout whose cell the model decides: audits, hold-out, and the rest."""

from datetime import timedelta

import pytest

from rollout.data.records.records import RecordStore
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.records.records import Case, Decision, Outcome, Prediction
from rollout.features.reports.figures.holdout import compute_feedback
from rollout.features.reports.figures.label_sources import SOURCES
from rollout.features.reports.stored_inputs import load_report_inputs, load_whole_period
from rollout.features.training.cleaning import TrainingOptions, export_training_rows
from rollout.kernel.statistics.sampling import compute_sampling_value
from rollout.live.rollout_state import load_rollout_state
from tests.api.bears import CREEK, POLICY, approved, founded, scope_of, tick, widened
from tests.factories import NOON, TICK

pytestmark = pytest.mark.slow

VIEWER = Caller("vi", role_assignments=(AssignedRole("viewer"),))
STAGES = "stages: [{id: supervised, blind: 50%}, {id: autonomous, blind: 20%, audit: 25%}]\n"
CASES = 200
LATER = NOON + timedelta(days=3)


@pytest.fixture(autouse=True)
def _decided(database, monkeypatch):
    """Let v1 decide at creek by day, then let cases come: people judge what the draw gives them."""
    text = POLICY.replace("guards:", f"{STAGES}guards:")
    monkeypatch.setattr("tests.api.bears.POLICY", text)
    founded(database, NOON - timedelta(days=1))
    widened(database, NOON - timedelta(hours=5))
    at = NOON - timedelta(hours=4)
    tick(database, at)
    approved(database, at + TICK, Actor("dan", ("operator",)), Actor("eve", ("safety",)))
    assert scope_of(database).get_holder(CREEK) == "v1"
    with database.begin_write() as transaction:
        stood = load_rollout_state(transaction, "bears")
        for number in range(CASES):
            kept = list(records(f"c{number:03}", number, stood.rollout.salt))
            RecordStore(transaction, stood.rollout).store(kept, received_at=NOON)


def records(key, number, salt):
    at = NOON + timedelta(minutes=number)
    held, audited = draw(key, salt)
    yield Case(key=key, site="creek", occurred_at=at, window="day")
    yield Prediction(key=key, version="v1", answers={"alarm": "bear"}, at=at)
    if held or audited:
        yield Decision(
            key=key, reviewer="ana", answers={"alarm": "none"}, exposure="blind", submitted_at=at
        )
    if number % 40 == 0:
        yield Outcome(key=key, at=LATER, answers={"alarm": "none"})


def draw(key, salt):
    """Return whether a human decides a case, and whether it is audited else; the salts are one."""
    held = compute_sampling_value(salt, "stage", key) < 0.2
    return held, not held and compute_sampling_value(salt, "audit", key) < 0.25


def drawn_as(salt=bytes(32)):
    """Return by key what the draw makes of each case without an outcome."""
    found = {}
    for number in range(CASES):
        held, audited = draw(key := f"c{number:03}", salt)
        source = "blind" if held else "audit" if audited else "model-made"
        found[key] = "outcome" if number % 40 == 0 else source
    return found


@pytest.mark.slow
def test_each_row_is_as_its_draw_says(database):
    whole = export_training_rows(database, VIEWER, "bears", TrainingOptions(SOURCES), LATER)
    assert dict(whole.rows.select("case_key", "source").iter_rows()) == drawn_as()
    assert set(whole.rows["weight"]) == {1.0}


def test_without_what_the_model_made_audits_stand_for_it(database):
    found = export_training_rows(database, VIEWER, "bears", TrainingOptions(), LATER)
    weights = dict(found.rows.select("source", "weight").unique().iter_rows())
    assert weights == {"blind": 1.0, "audit": 4.0, "outcome": 1.0}
    assert found.manifest.excluded["not asked for"] == list(drawn_as().values()).count("model-made")
    drawn_weights = (weights.get(source, 0.0) for source in drawn_as().values())
    assert found.manifest.weight == sum(drawn_weights)  # about the number of cases
    assert found.manifest.weight == pytest.approx(CASES, rel=0.25)


def test_the_same_export_has_the_same_manifest(database):
    first = export_training_rows(database, VIEWER, "bears", TrainingOptions(), LATER).manifest
    again = export_training_rows(
        database, VIEWER, "bears", TrainingOptions(), LATER + timedelta(days=1)
    ).manifest
    assert first == again


def test_the_report_says_what_is_held_out(database):
    with database.begin_read() as transaction:
        stood = load_rollout_state(transaction, "bears")
        inputs = load_report_inputs(
            transaction, stood, load_whole_period(transaction, stood, LATER)
        )
    (one,) = compute_feedback(inputs)
    told = drawn_as()
    held = sum(compute_sampling_value(bytes(32), "stage", key) < 0.2 for key in told)
    assert (one.holdout_units, one.model_units, one.holdout_shares) == (held, CASES - held, (0.2,))
    assert one.has_planned_size
    assert one.model_label_share.count == list(told.values()).count("model-made")
