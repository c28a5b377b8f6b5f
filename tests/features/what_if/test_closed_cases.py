"""What a comparison reads of the store: closed cases alone, whole batches for reviewers."""

import polars as pl
import pytest

from rollout.data.database.rollouts import Rollouts
from rollout.data.records.records import RejectedRecords
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.records.records import RejectedItem
from rollout.features.records.record_import import import_records
from rollout.features.reports.figures.methods import build_model_cases, compute_cell_costs
from rollout.features.reports.inputs.inputs import assign_deciders, compute_stage_histories
from rollout.features.what_if import comparison
from rollout.features.what_if.comparison import compare_policies
from rollout.features.what_if.replayed_policy import replay_policy
from rollout.features.what_if.runs import WhatIfRequest, load_what_if_inputs
from rollout.kernel.errors import NotAllowedError, RefusalError
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.policy_application import apply_policy
from rollout.live.tick_passes import Ticker
from tests.data.snapshots import filled_once
from tests.factories import DAY, HOUR
from tests.features.reports.conftest import BEARS, NOON, Case, inputs_of, records_of, story

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("url", ["sqlite"], indirect=True)]

SALT = bytes(range(32))
DRAFT = BEARS.replace("audit: 30%", "audit: 60%").replace("units: 40", "units: 20")
ENGINEER = Caller("eve", role_assignments=(AssignedRole("viewer"),))
ASKED = Caller("ana", role_assignments=(AssignedRole("viewer"), AssignedRole("reviewer")))
ENDED = NOON + 7 * DAY


@pytest.fixture
def lived(database):
    """Return a database with six days of records, decided up to the seventh."""
    fill(database)
    return database


@filled_once
def fill(database):
    apply_policy(database, BEARS, Actor("zoe"), NOON - DAY, salt=SALT, service_salt=SALT)
    import_records(database, "bear-alarm", records_of(story()), ENDED - HOUR)
    Ticker(database, "bear-alarm", "one").tick(ENDED)


def load(database, caller=ENGINEER, draft=DRAFT, days=30, at=ENDED):
    return load_what_if_inputs(database, caller, WhatIfRequest("bear-alarm", draft, days), at=at)


@pytest.mark.slow
def test_stored_records_give_what_a_replay_of_the_same_records_gives(lived, monkeypatch):
    monkeypatch.setattr(comparison, "DRAW_COUNT", 1)  # no side's own figures come from the others
    inputs = load(lived)
    assert (inputs.salt, inputs.audit_salt) == (SALT, SALT)
    result = compare_policies(inputs)
    for text, side in ((BEARS, "current"), (DRAFT, "draft")):
        replayed = inputs_of(story(), parse_policy(text), SALT)
        stages = {(c.site, c.window): c.intervals for c in compute_stage_histories(replayed)}
        costs = compute_cell_costs(build_model_cases(replayed, assign_deciders(replayed)))
        expected = {(row.site, row.window): row.cost for row in costs}
        for pair in result.cells:
            found = getattr(pair, side)
            key = pair.site, pair.window
            assert found.intervals == stages[key]
            if key in expected:
                price = expected[key]
                assert (found.figures.model, found.figures.wrong, found.figures.cost) == (
                    price.cases, price.wrong.count, price.cost,
                )  # fmt: skip
        assert getattr(result, side).figures.model > 0


def test_a_case_that_is_not_closed_is_in_no_comparison(database):
    apply_policy(database, BEARS, Actor("zoe"), NOON - DAY, salt=SALT, service_salt=SALT)
    at = NOON + 2 * DAY
    before = [case for case in story() if case.at <= at]
    import_records(database, "bear-alarm", records_of(before), at)
    Ticker(database, "bear-alarm", "one").tick(at + 2 * HOUR)
    late = [case for case in story() if at < case.at < at + 2 * HOUR]
    late.append(Case("unpredicted", at + 1.5 * HOUR, human="bear"))  # is in no unit
    import_records(database, "bear-alarm", records_of(late), at + 2 * HOUR)
    inputs = load(database, at=at + 2 * HOUR)
    keys = set(inputs.records.records.cases["case_key"])
    is_open = {case.key: case.at > at + HOUR for case in (*before, *late)}  # the grace is 1 h
    assert keys == {key for key in is_open if not is_open[key]}
    assert inputs.open_cases == sum(is_open.values()) > 0
    for frame in ("predictions", "decisions", "outcomes"):
        assert set(getattr(inputs.records.records, frame)["case_key"]) <= keys


def test_who_may_be_asked_blind_can_cut_no_draft_around_a_case(lived):
    """A window of ten minutes would show the difference of its one case."""
    assert load(lived, ENGINEER).records.records.cases.height == 397
    with pytest.raises(RefusalError, match="could single out a case"):
        load(lived, ASKED)


def test_decisions_without_a_place_hold_the_same_slots_as_live(lived):
    """Those received four days before the first case count until the fourth day."""
    rejected = [
        RejectedItem("decision", f"lost{n}", str(n), "", is_placeless=True) for n in range(999)
    ]

    def find_changes():
        records = load(lived).records
        cells = replay_policy(parse_policy(BEARS), records, SALT)
        return next(
            [(part.stage, part.since) for part in cell.intervals]
            for cell in cells
            if (cell.site, cell.window) == ("creek", "day")
        )

    (_, shadow), (stage, widened), *_ = find_changes()
    with lived.begin_write() as transaction:
        rollout = Rollouts(transaction).find("bear-alarm")
        RejectedRecords(transaction, rollout).add(rejected, received_at=NOON - 4 * DAY)
    assert widened < NOON + 3 * DAY
    assert find_changes()[:2] == [("shadow", shadow), (stage, NOON + 3 * DAY + HOUR)]


@pytest.mark.slow
def test_shares_are_those_under_which_the_records_were_made(lived):
    shares = load(lived).records.shares
    assert shares.height == 397
    assert shares["share"].unique().to_list() == [1.0], "the rollout stayed in shadow"
    assert shares.schema["share"] == pl.Float64


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"draft": BEARS.replace("rollout: bear-alarm", "rollout: bees")}, "the draft is of bees"),
        ({"days": 31}, "31 days are no span of a comparison; write 30 or 90"),
    ],
)
def test_a_request_that_cant_be_run_says_what_to_write(lived, changed, message):
    with pytest.raises(RefusalError, match=message):
        load(lived, **changed)


def test_who_may_not_read_every_site_gets_nothing(lived):
    at_creek = Caller("cy", role_assignments=(AssignedRole("viewer", site="creek"),))
    with pytest.raises(NotAllowedError, match="meadow"):
        load(lived, at_creek)
    with pytest.raises(NotAllowedError, match="may not read"):
        load(lived, Caller("rex", role_assignments=(AssignedRole("reviewer"),)))
