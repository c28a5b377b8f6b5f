"""An erasure takes the attribute values of counted units that only erased cases have."""

from datetime import timedelta

import pytest

from rollout.data.counting.counted_units import read_unit_lines
from rollout.data.database.rollouts import Rollouts
from rollout.data.erasure.contents import CaseContents
from rollout.data.records.external_keys import CASE, ExternalKeys
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.records.records import Case, Decision, Prediction
from rollout.features.erasure.erasure import (
    ErasureRequest,
    erase_case,
    erase_contents,
    erase_episode,
)
from rollout.features.records.ingest import ingest_items
from rollout.live.clock import ManualClock
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.policy_application import apply_policy
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker
from tests.data.conftest import database, url
from tests.data.databases import on_sqlite
from tests.factories import HOUR, NOON
from tests.features.erasure.traces import find_traces

pytestmark = pytest.mark.slow

__all__ = ["database", "url"]
POLICY = """
rollout: ramps
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a]
slices: [plate, color]
evidence:
  unit: UNIT
  grace: 1h
  outside: blind
  sources: {accounts: [{account: desk, reviewers: ["*"]}]}
  familiar: {attributes: [plate, [color, plate]], at_least: 5}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
tick: 1h
"""
ADMIN = Caller("ada", role_assignments=(AssignedRole("admin"),))
BOX = Caller("box", is_service_account=True, role_assignments=(AssignedRole("ingest"),))
DESK = Caller("desk", is_service_account=True, role_assignments=(AssignedRole("ingest-decisions"),))
REQUEST = ErasureRequest(ADMIN, "ramps", "the customer asked", NOON + timedelta(hours=9))
SOUND = {"parcel": "sound"}


def count(database, plates, unit="case", episode=None):
    """Count a case for each plate; return the ticker."""
    apply_policy(
        database,
        POLICY.replace("UNIT", unit.replace(", ", "\n  ")),
        Actor("zoe"),
        NOON,
        salt=bytes(32),
    )
    ticker = Ticker(database, "ramps", "box")
    count_more(database, ticker, plates, NOON + timedelta(minutes=5), episode)
    return ticker


def count_more(database, ticker, plates, at, episode=None):
    """Count a case for each plate, within four hours."""
    service = build_service(database, None, ManualClock(NOON))
    for key, plate in plates.items():
        case = Case(
            key=key, site="ramp-a", occurred_at=at, window="always", episode=episode,
            attributes={"plate": plate, "color": "red"},
        )  # fmt: skip
        ingest_items(
            service, BOX, "ramps", [case, Prediction(key=key, version="v1", answers=SOUND)], at
        )
        decision = Decision(key=key, reviewer="dia", answers=SOUND, exposure="blind")
        ingest_items(service, DESK, "ramps", [decision], at)
    ticker.tick(at + 4 * HOUR)


def find_holders(database, key):
    """Return the holders of a case's values as an erasure first reads them."""
    with database.begin_read() as transaction:
        rollout = Rollouts(transaction).find("ramps")
        return CaseContents(transaction, rollout).find_value_holders([key], None)


def erase_with(database, key, earlier):
    """Erase a case by holders that were read before."""
    with database.begin_write() as transaction:
        erase_contents(transaction, REQUEST, [key], earlier)


def load_lines(database):
    with database.begin_read() as transaction:
        rollout = Rollouts(transaction).find("ramps")
        return list(read_unit_lines(transaction, rollout, after=-1, until=2**60))


@pytest.mark.slow
def test_a_value_that_no_other_case_has_goes_and_digests_stay(database):
    ticker = count(database, {"k1": "B-KESTREL", "k2": "B-PLOVER"})
    before = load_lines(database)
    assert "counted_units.attribute_values" in find_traces(database, "KESTREL")
    erase_case(database, REQUEST, "k1")
    assert find_traces(database, "KESTREL") == []
    after = load_lines(database)
    assert [line.text for line in after] == [line.text for line in before]
    assert sum("PLOVER" in line.slices for line in after) == len(before) / 2
    assert all('"color":"red"' in line.slices for line in after)
    check = EvidenceCheck(database, "ramps").check_all()
    assert (list(check.faults), check.erased_units) == ([], len(before) / 2)
    ticker.tick(NOON + 10 * HOUR)
    assert "KESTREL" not in str(ticker._evidence._units.unit_classes.classes)


@on_sqlite
def test_a_shared_value_goes_with_the_last_case_that_has_it(database):
    count(database, {"k1": "B-KESTREL", "k2": "B-KESTREL", "k3": "B-PLOVER"})
    erase_case(database, REQUEST, "k1")
    assert "counted_units.slices" in find_traces(database, "KESTREL")
    erase_case(database, REQUEST, "k2")
    assert find_traces(database, "KESTREL") == []
    texts = {line.slices for line in load_lines(database)}
    assert len(texts) == 2  # the erased ones are still one group
    assert list(EvidenceCheck(database, "ramps").check_all().faults) == []


def test_a_value_that_is_counted_during_an_erasure_is_shared(database):
    ticker = count(database, {"k1": "B-KESTREL", "k2": "B-PLOVER"})
    earlier = find_holders(database, "k1")
    assert earlier.holders.shared_values.keys() == {("color", "red")}
    count_more(database, ticker, {"k3": "B-KESTREL"}, NOON + 4 * HOUR)
    erase_with(database, "k1", earlier)
    assert len({line.slices for line in load_lines(database)}) == 2  # one group stays one


@on_sqlite
def test_values_that_are_counted_or_erased_during_an_erasure_go(database):
    ticker = count(database, {"k1": "B-KESTREL", "k2": "B-KESTREL", "k3": "B-PLOVER"})
    earlier = find_holders(database, "k1")
    erase_case(database, REQUEST, "k2")
    erase_with(database, "k1", earlier)
    assert find_traces(database, "KESTREL") == []
    before = find_holders(database, "k4")
    count_more(database, ticker, {"k4": "B-PLOVER"}, NOON + 4 * HOUR)
    erase_with(database, "k4", before)
    assert len({line.slices for line in load_lines(database)}) == 2  # k3's is not renamed in part


@on_sqlite
def test_the_values_of_cases_that_were_counted_by_a_clock_span_go_too(database):
    keys = ("kestrel", "plover", "gull")
    count(database, {key: f"B-{key.upper()}" for key in keys}, "episode, episode_span: 30m")
    with database.begin_read() as transaction:
        external_keys = ExternalKeys(transaction, Rollouts(transaction).find("ramps"), CASE)
        numbers = external_keys.find_ids(keys)
    # of the cases of a span one stands for it in each track; the others are named by no column
    shown = {line.case_id for line in load_lines(database)}
    hidden = next(key for key, number in numbers.items() if number not in shown)
    erase_case(database, REQUEST, hidden)
    assert find_traces(database, hidden.upper()) == []


@on_sqlite
def test_the_values_of_an_episodes_other_cases_go_too(database):
    count(database, {"k1": "B-KESTREL", "k2": "B-PLOVER"}, "episode", "flock")
    assert "counted_units.attribute_values" in find_traces(database, "KESTREL")
    assert "counted_units.attribute_values" in find_traces(database, "PLOVER")
    erase_episode(database, REQUEST, "flock")
    assert find_traces(database, "KESTREL") == find_traces(database, "PLOVER") == []
    assert list(EvidenceCheck(database, "ramps").check_all().faults) == []


@on_sqlite
@pytest.mark.parametrize("key", ["k1", "k2"])
def test_an_episode_that_lost_any_of_its_cases_is_no_fault(database, key):
    count(database, {"k1": "B-KESTREL", "k2": "B-PLOVER"}, "episode", "flock")
    erase_case(database, REQUEST, key)
    report = EvidenceCheck(database, "ramps").check_all()
    assert (list(report.faults), report.erased_units) == ([], len(load_lines(database)))
