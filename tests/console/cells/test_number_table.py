"""How numbers agree with those of humans, on a cell's page: never for a blind reviewer."""

from statistics import mean, stdev

import pytest
from msgspec.structs import replace

from api.cells import pages as rollout_page
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.reviews.reviews import NewReviewTask, ReviewTaskStore
from rollout.engine.decide.commands import Actor, AddVersion
from rollout.engine.records.records import Prediction
from rollout.features.cells.cell_table import load_number_agreements
from rollout.features.reports.figures.agreement import compute_number_agreements
from rollout.features.reports.inputs.pairs import build_pairs
from rollout.features.reports.stored_inputs import ReportPeriod, load_report_inputs
from rollout.kernel.calendar.instants import Cell
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command
from tests.api.bears import CREEK, LAKE
from tests.console.divergences.test_divergence_pages import SCALES
from tests.console.told_cases import AT, CLOSED, case, tell, verdict
from tests.factories import DAY, NOON

NUMBERS = {"near": 10.5, "far": 17, "low": 8, "lower": 7}
CELL = "/rollouts/scales/cells/creek/day"


@pytest.fixture
def weighed(service, database):
    """Store v1's numbers of four cases whose human number is 10; return the service."""
    apply_policy(database, SCALES, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    execute_command(database, "scales", lambda _: AddVersion(at=NOON, version="v1"))
    for key, number in NUMBERS.items():
        answers = {"alarm": str(number)}
        tell(
            database,
            case(key),
            Prediction(key=key, version="v1", answers=answers, at=AT, confidence=0.9),
            replace(verdict(key, "none"), answers={"alarm": "10"}),
            rollout="scales",
        )
    service.clock.at = CLOSED
    return service


@pytest.mark.slow
def test_a_cells_page_has_bias_limits_and_concordance(weighed, browser, monkeypatch):
    page = browser.as_("ana").page(CELL)
    assert 'aria-label="Numbers of v1 for alarm"' in page
    assert "Within the tolerance of 1 kg" in page
    for name in ("Bias (model − human)", "Lower limit of agreement", "Lin&#39;s concordance"):
        assert name in page
    assert "+0.625\N{NO-BREAK SPACE}kg" in page
    monkeypatch.setattr(rollout_page, "may_be_asked_blind", lambda *_: True)
    assert "Bias" not in browser.page(CELL)


def test_the_figures_are_of_the_cells_recent_pairs(weighed):
    state = weighed.state_cache.reload_rollout("scales").state
    (agreement,) = load_number_agreements(weighed, state, CREEK, CLOSED)["v1"]
    differences = [number - 10 for number in NUMBERS.values()]
    assert (agreement.within.count, agreement.within.n) == (1, 4)
    assert agreement.differences.bias.value == pytest.approx(mean(differences))
    assert agreement.differences.lower.value == pytest.approx(
        mean(differences) - 1.96 * stdev(differences), abs=0.01
    )
    for cell in (LAKE, Cell("creek", "night")):
        assert load_number_agreements(weighed, state, cell, CLOSED) == {}
    assert load_number_agreements(weighed, state, CREEK, CLOSED + 40 * DAY) == {}


def test_a_live_report_of_the_same_cases_has_the_same_figures(weighed, database):
    state = weighed.state_cache.reload_rollout("scales").state
    with database.begin_read() as transaction:
        period = ReportPeriod(NOON, CLOSED, CLOSED)
        inputs = load_report_inputs(transaction, state, period)
    pairs = build_pairs(inputs.records, inputs.cases, inputs.policy)
    agreements = compute_number_agreements(pairs, inputs.policy)
    assert agreements == load_number_agreements(weighed, state, CREEK, CLOSED)["v1"]


def test_a_case_that_may_still_be_decided_blind_is_left_out(weighed, database):
    state = weighed.state_cache.reload_rollout("scales").state
    with database.begin_write() as transaction:
        (far,) = ExternalKeys(transaction, state.rollout).find_ids({"far"}).values()
        task = NewReviewTask(
            case_id=far,
            kind="blind",
            task_number=1,
            site="creek",
            opened_at=AT,
            sampling_value=0.5,
            due_at=CLOSED + DAY,
        )
        ReviewTaskStore(transaction, state.rollout).open_tasks([task])
    (agreement,) = load_number_agreements(weighed, state, CREEK, CLOSED)["v1"]
    assert agreement.within.n == 3
    assert agreement.differences.bias.value < 0
