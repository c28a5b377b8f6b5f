"""The promises of the design, held against the running service: random histories, and scenes."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.promises.live_machine import Life
from tests.promises.live_mutants import MUTANTS
from tests.promises.live_scenes import SCENES

pytestmark = pytest.mark.simulation

SEARCHED = settings(
    deadline=None,
    derandomize=True,
    print_blob=True,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
ALWAYS_MET = {  # a search that never widens would prove nothing; the scenes meet all the rest
    "Widened",
    "a model decides at autonomous",
    "asked of a stopped cell with grants",
    "runs replayed",
}


@pytest.mark.parametrize(
    ("engine", "examples", "steps"), [("sqlite", 10, 20), ("postgresql", 3, 15)]
)
def test_no_history_breaks_a_promise(engine, examples, steps):
    life = type("Life", (Life,), {"engine": engine, "totals": Counter()})
    bounds = settings(SEARCHED, max_examples=examples, stateful_step_count=steps)
    run_state_machine_as_test(life, settings=bounds)
    if engine == "sqlite":
        assert {what for what in ALWAYS_MET if not life.totals[what]} == set()


def played(scene):
    """Play a scene to its end; what a replica still holds is closed, however it ends."""
    life = Life()
    try:
        scene(life)
    except BaseException:
        life.world.close()
        raise
    life.teardown()


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_a_scene_that_a_search_meets_too_seldom_keeps_the_promises(scene):
    played(scene)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_way_to_break_a_promise_is_seen(mutant):
    with mutant.applied(), pytest.raises(AssertionError):
        played(mutant.scene)
