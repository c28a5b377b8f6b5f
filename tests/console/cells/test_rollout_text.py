"""What sentences say of models that decide a share of the cases."""

from dataclasses import replace

from api.cells.map_rows import compute_schedules
from api.cells.overview_pages import RolloutCard, describe_deciding_models
from api.cells.rollout_text import describe_allowed
from rollout.kernel.calendar.instants import Cell
from tests.factories import AUTONOMOUS, CREEK, LAKE, SUPERVISED, autonomous, policy

SHARED = replace(AUTONOMOUS, blind=0.7, share=0.3)


def read_sentence(stage, *cells):
    """Return what is allowed where v1 is at the highest stage in CREEK and `cells`."""
    rollout = autonomous(policy(stages=(SUPERVISED, stage)))
    for cell in (cell for cell in cells for _ in range(2)):
        rollout.widen(cell)
    schedules = compute_schedules(rollout.scope, rollout.policy, rollout.at)
    sites = [site.id for site in rollout.policy.sites]
    return describe_allowed(rollout.policy, rollout.scope, schedules, sites)


def test_a_model_that_decides_a_share_does_not_decide_alone_everywhere():
    cells = [Cell(site.id, window.id) for site in policy().sites for window in policy().windows]
    others = [cell for cell in cells if cell != CREEK]
    assert read_sentence(AUTONOMOUS, *others) == "v1 decides alone everywhere."
    assert read_sentence(SHARED, *others) == (
        "v1 decides 30 % of cases, drawn at random, everywhere. Humans decide everything else."
    )


def test_the_overview_names_the_share_of_each_cell():
    card = dict.fromkeys(RolloutCard.__dataclass_fields__) | {"name": "bears", "notices": ()}
    cells = {CREEK: 0.3, LAKE: 1.0}
    assert describe_deciding_models([RolloutCard(**card | {"model_shares": cells})]) == (
        "A model decides 30 % of cases, drawn at random, at creek · day of bears and alone at lake"
        " · day of bears. Humans decide or confirm everything else."
    )
    many = {Cell(f"s{n}", "day"): 0.3 if n < 2 else 1.0 for n in range(5)}
    assert describe_deciding_models([RolloutCard(**card | {"model_shares": many})]) == (
        "Models decide at 5 cells in bears, at 2 of them a share of cases, drawn at random."
        " Humans decide or confirm everything else."
    )


def test_a_stop_comes_before_what_is_allowed():
    rollout = autonomous()
    sites = [site.id for site in rollout.policy.sites]
    rollout.stop(LAKE)

    def read():
        schedules = compute_schedules(rollout.scope, rollout.policy, rollout.at)
        return describe_allowed(rollout.policy, rollout.scope, schedules, sites)

    assert read().startswith("Stopped at lake by day: humans decide there. v1 decides alone at")
    rollout.stop(*rollout.policy.cells)
    assert read() == "Stopped everywhere: humans decide everything."
