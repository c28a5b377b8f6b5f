"""Whoever decided blind changes it before the tick: guards count the last blind answer."""

import pytest

from rollout.engine.records.records import Case, Decision
from tests.data.databases import on_sqlite


def correct(desk, exposure, *, unsure=False):
    """Judge a case to be wrong, and then as the model answered, or not at all."""
    desk.judge(verdict="high")
    answers = {} if unsure else {"price": "low"}
    key, exposed = f"c{len(desk.cases) - 1}", {"exposure": exposure, "unsure": unsure}
    corrected = Decision(key=key, reviewer="rae", answers=answers, revision=2, **exposed)
    desk.send(corrected, account="desk")


@on_sqlite
@pytest.mark.parametrize(
    ("exposure", "changes"),
    [("revealed", ["Narrowed"]), ("assisted", ["Narrowed"]), ("blind", [])],
)
def test_a_disagreement_reaches_the_guards_unless_it_was_a_slip(widened_desk, exposure, changes):
    """One that is corrected as blind as it was is no disagreement: people mistype."""
    for _ in range(30):
        correct(widened_desk, exposure)
    assert widened_desk.pass_hours(1) == changes


@on_sqlite
def test_a_disagreement_that_becomes_unsure_reaches_the_guards(widened_desk):
    for _ in range(30):
        correct(widened_desk, "blind", unsure=True)
    assert widened_desk.pass_hours(1) == ["Narrowed"]


@on_sqlite
def test_a_disagreement_that_is_sent_with_its_correction_reaches_the_guards(widened_desk):
    for place in range(30):
        key = f"twice-{place}"
        widened_desk.send(Case(key=key, site="kiosk", window="", occurred_at=widened_desk.now))
        widened_desk.predict(key)
        verdicts = [("high", "blind"), ("low", "revealed")]
        sent = [
            Decision(
                key=key,
                reviewer="rae",
                answers={"price": label},
                exposure=exposure,
                revision=number,
            )
            for number, (label, exposure) in enumerate(verdicts, 1)
        ]
        widened_desk.send(*sent, account="desk")
    assert widened_desk.pass_hours(1) == ["Narrowed"]
