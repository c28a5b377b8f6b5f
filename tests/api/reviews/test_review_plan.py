"""Where the next reviews help most, over HTTP: the evidence that the caller may read."""

from dataclasses import replace

import pytest

from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.evidence.evidence_view import BATCH_SIZE
from rollout.features.records.record_import import import_records
from rollout.kernel.calendar.instants import to_instant
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.policy_application import apply_policy
from rollout.live.tick_passes import Ticker
from tests.api.test_shell import problem_of
from tests.data.snapshots import filled_once
from tests.engine.slots.stories import a_history
from tests.live.test_live import BY_CASE, STORY, replayed

pytestmark = pytest.mark.slow

STRICT = BY_CASE.replace("50%}], risk", "80%}], risk").replace("70%}]", "85%}]")
PLAN = "/v1/rollouts/story/review-plan"


@pytest.fixture
def story(database, clock):
    last = count_strict_story(database)
    clock.advance(last - clock.now())
    return last


@filled_once
def count_strict_story(database):
    """Count the story under thresholds that its cells have not met yet."""
    policy = parse_policy(STRICT)
    history = a_history(replace(STORY, slots=40), policy)
    slots, _ = replayed(history, policy, None)
    first, last = to_instant(slots[0], policy.tick), to_instant(slots[-20], policy.tick)
    apply_policy(database, STRICT, Actor("zoe"), first, salt=bytes(32), service_salt=bytes(32))
    import_records(database, "story", history, first)
    Ticker(database, "story", "one").tick(last)
    return last


@pytest.fixture
def viewer(client, door):
    door.let_in("vic", AssignedRole("viewer"))
    return client.by("vic")


@pytest.mark.slow
def test_each_cell_with_a_next_stage_has_a_row_of_its_own_evidence(viewer, story):
    answer = viewer.get(PLAN, params={"next": 500}).json()
    plan = answer["plan"]
    assert (answer["is_batched"], plan["decisions"]) == (False, 500)
    cells = viewer.get("/v1/rollouts/story/cells").json()["items"]
    assert len(plan["cells"]) + plan["closed_cells"] == len(
        {(cell["site"], cell["window"]) for cell in cells}
    )
    assert sum(row["planned"] for row in plan["cells"]) + plan["unplanned"] == 500
    for row in plan["cells"]:
        cell = viewer.get(f"/v1/rollouts/story/cells/{row['site']}/{row['window']}").json()
        (evidence,) = (e for e in cell["evidence"] if e["version"] == row["version"])
        assert row["judged"] == evidence["decided_units"]
        assert row["to"] == evidence["gate"]["to"]
        assert row["ever_chance"] is not None or row["outlook"] == "no data"
    assert {row["outlook"] for row in plan["cells"]} & {"on course", "uncertain"}


def test_a_site_alone_and_only_for_those_who_may_read_it(client, viewer, door, story):
    plan = viewer.get(PLAN, params={"site": "s0"}).json()["plan"]
    assert {row["site"] for row in plan["cells"]} == {"s0"}
    door.let_in("lu", AssignedRole("viewer", "story", "s1"))
    assert {row["site"] for row in client.by("lu").get(PLAN).json()["plan"]["cells"]} == {"s1"}
    refused = client.by("lu").get(PLAN, params={"site": "s0"})
    assert problem_of(refused) == (403, "not-allowed")


@pytest.mark.slow
def test_who_may_be_asked_blind_reads_whole_batches(client, viewer, door, story):
    exact = {
        (row["site"], row["window"]): row["judged"]
        for row in viewer.get(PLAN).json()["plan"]["cells"]
    }
    door.let_in("eve", AssignedRole("viewer"), AssignedRole("reviewer"))
    answer = client.by("eve").get(PLAN).json()
    assert answer["is_batched"]
    batched = {(r["site"], r["window"]): r["judged"] for r in answer["plan"]["cells"]}
    assert any(batched[cell] < judged for cell, judged in exact.items())
    assert all(exact[cell] - batched[cell] <= 2 * BATCH_SIZE for cell in exact)


def test_numbers_out_of_range_and_too_many_cells_are_refused(viewer, story, monkeypatch):
    for number in (0, -1, 100_001, "many"):
        assert viewer.get(PLAN, params={"next": number}).status_code == 422
    monkeypatch.setattr("rollout.features.cells.overview.MAX_PLANNED_CELLS", 1)
    answer = viewer.get(PLAN)
    assert problem_of(answer) == (422, "refused")
    assert answer.json()["detail"].endswith("and one plan has at most 1: name a `site`")


def test_a_site_that_the_policy_lacks_is_refused(viewer, story):
    answer = viewer.get(PLAN, params={"site": "nowhere"})
    assert problem_of(answer) == (422, "refused")
    assert answer.json()["detail"].startswith("the policy has no site nowhere: name one of its")
