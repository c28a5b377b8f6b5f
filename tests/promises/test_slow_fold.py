"""The second reading of ledgers reads each event that changes what a model may do."""

from rollout.engine.decide.projection import apply_event
from rollout.engine.decide.scope import Scope, compute_stage_level
from rollout.engine.events import EVENT_TYPES
from tests.factories import eventful
from tests.slow_fold import SlowFold

HANDLERS = {name.removeprefix("on_") for name in dir(SlowFold) if name.startswith("on_")}
"""A handler whose event has another name is called by nobody, and its rows allow too much."""


def test_each_handler_is_of_an_event_that_exists():
    assert len(HANDLERS) > 15
    assert {kind.lower() for kind in EVENT_TYPES} >= HANDLERS


def test_each_event_after_which_a_stage_differs_has_a_handler():
    rollout, scope, moving = eventful(), Scope(), set()
    for event in rollout.events:
        later = apply_event(scope, event)
        levels = [
            [compute_stage_level(each, rollout.policy, *key, event.at) for key in later.cells]
            for each in (scope, later)
        ]
        if levels[0] != levels[1]:
            moving.add(type(event).__name__.lower())
        scope = later
    assert moving >= {"widened", "narrowed", "suspended", "suspensioncleared", "stopped", "resumed"}
    assert moving <= HANDLERS
