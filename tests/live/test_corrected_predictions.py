"""A version acts by one answer and corrects it before anybody decides: the first one counts."""

import pytest

from rollout.engine.records.records import Action, Case, Decision, Prediction
from tests.data.databases import on_sqlite
from tests.factories import MINUTE


def correct(desk, *, acts_after):
    """Predict wrongly and then rightly; act after so many of these answers."""
    key = f"c{len(desk.cases)}"
    desk.cases[key] = Case(key=key, site="kiosk", window="", occurred_at=desk.now)
    desk.send(desk.cases[key])
    for revision, label in enumerate(["high", "low"], 1):
        desk.send(Prediction(key=key, version="v1", answers={"price": label}, revision=revision))
        if revision == acts_after:
            act = {"lever": "price", "action": label, "by": "model", "version": "v1"}
            desk.send(Action(key=key, at=desk.now, **act))
    desk.now += 5 * MINUTE
    verdict = Decision(key=key, reviewer="rae", answers={"price": "low"}, exposure="blind")
    desk.send(verdict, account="desk")


@on_sqlite
@pytest.mark.parametrize(("acts_after", "changes"), [(1, ["Narrowed"]), (2, []), (None, [])])
def test_what_a_version_acted_by_reaches_the_guards(widened_desk, acts_after, changes):
    for _ in range(30):
        correct(widened_desk, acts_after=acts_after)
    assert widened_desk.pass_hours(1) == changes
