"""A view that a replay replaces is freed at once; cycles of it would be found late, and pile up."""

import gc

import pytest

from rollout.engine.evidence.evidence_view import EvidenceView
from rollout.engine.slots import engine
from tests.engine.slots.stories import a_history, prepared
from tests.engine.slots.test_fast_forward import told

pytestmark = pytest.mark.slow


def list_views():
    return [each for each in gc.get_objects() if type(each) is EvidenceView]


@pytest.mark.parametrize("seed", [39, 96])
def test_only_the_views_of_the_result_are_left(seed, monkeypatch):
    policy, story, course = told(seed)
    ready = prepared(a_history(story, policy), policy, course.salt)
    update_view, rebuilt = engine.update_view, []

    def count_rebuilt(view, *arguments):
        new = update_view(view, *arguments)
        rebuilt.append(view is not None and new is not view)
        return new

    monkeypatch.setattr(engine, "update_view", count_rebuilt)
    gc.collect()
    gc.disable()
    try:
        earlier = len(list_views())
        result = ready.run(course)
        left = len(list_views()) - earlier
    finally:
        gc.enable()
    assert sum(rebuilt) > len(result.views) > 0
    assert left == len(result.views)
