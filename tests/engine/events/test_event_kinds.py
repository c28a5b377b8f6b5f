"""What a kind of event says of itself agrees with what it does, also of kinds to come."""

import inspect
import re

import pytest

from rollout.engine.events import EVENT_TYPES
from rollout.engine.events.base import Reach

SETS_CELLS = re.compile(r"builder\.(cut_grants|set_cell_state|begin_attempt)\(|_set_grants\(")
"""How an event changes grants, attempts or the acting version."""
WITHOUT_PERIOD = {"ClockCorrected"}
"""Takes back what was counted, so no period of a state ends with it."""
SETTING = [
    kind for kind in EVENT_TYPES.values() if SETS_CELLS.search(inspect.getsource(kind.apply))
]


def test_the_kinds_that_set_cells_are_met():
    names = {kind.__name__ for kind in SETTING}
    assert {"Widened", "TakenOver", "Narrowed", "AttemptsBegan", "PolicyApplied"} <= names


@pytest.mark.parametrize("kind", SETTING, ids=lambda kind: kind.__name__)
def test_an_event_that_sets_cells_says_where(kind):
    reaches = {kind.stage_reach, kind.state_reach, kind.agenda_reach}
    if kind.__name__ in WITHOUT_PERIOD:
        assert kind.stage_reach is Reach.ALL
    elif kind.__name__ == "AttemptsBegan":  # the same version acts at the same stage
        assert {kind.state_reach, kind.agenda_reach} == {Reach.OWN}
    else:
        assert Reach.NONE not in reaches, "what is stored of its cells would stay as it was"
