"""A gain in two cells on a database: what replay decides, and what approvers see of it."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rollout.engine.events import ProposalRaised
from rollout.features.access import users
from rollout.features.access.authentication import Authenticator
from rollout.features.access.sign_in import SignIn
from rollout.features.records.record_import import import_records
from rollout.kernel.calendar.instants import find_slot_before, to_instant
from rollout.live.clock import ManualClock
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker
from tests.chance import list_unsealed_events
from tests.console.conftest import PEOPLE
from tests.engine.slots import pricing
from tests.features.access.test_sign_in import QUICK
from tests.features.houses import PASSWORD, chance
from tests.live.test_live import live, replayed, until
from tests.live.test_live_outcomes import read_stream

pytestmark = pytest.mark.simulation
APPROVED_AFTER = timedelta(minutes=20)
GATE = "{measure: gain, of: profit, at_least: 0}"
LENIENT = "{measure: gain, of: profit, at_least: -15}"
FLOOR = "{measure: agreement, at_least: 40%}"
POLICY = (
    pricing.POLICY.replace("share: 10%", "share: 30%")
    .replace("sites: [shop]", "sites: [shop]\nwindows: WINDOWS")
    .replace("WINDOWS", "[{id: day, hours: '06:00-18:00'}, {id: night, hours: '18:00-06:00'}]")
    .replace("{to: trial, ", "{to: trial, minimum: {units: 10, days: 1}, ")
    .replace(f"[{GATE}]", f"[{LENIENT}, {FLOOR}]")
    .replace("{to: half, ", "{to: half, minimum: {units: 10, days: 1}, ")
)
SHARES = ((datetime(2027, 3, 1, 8, tzinfo=UTC), 0.3),)


def play(database, folder):
    """Play a stream up to the first proposal of `half`; return it with both ledgers."""
    policy, history = read_stream(
        folder, POLICY, gain=20, differs=0.2, days=5, a_day=60, shares=SHARES, has_gain=True
    )
    slots, expected = replayed(history, policy, APPROVED_AFTER)
    raised = next(e for e in expected if isinstance(e, ProposalRaised) and e.to_stage == "half")
    last_slot = find_slot_before(raised.at, policy.tick)

    def before_slot(slot, at):
        if (slot - slots[0]) % 12:
            return None
        import_records(database, "pricing", until(history, at + 11 * policy.tick), at)
        return Ticker(database, "pricing", "one")

    played_slots = range(slots[0], last_slot + 1)
    found = live(database, POLICY, played_slots, APPROVED_AFTER, before_slot=before_slot)
    end = to_instant(last_slot, policy.tick)
    return raised, found, [event for event in expected if event.at <= end]


@pytest.fixture
def played(database, tmp_path):
    return play(database, tmp_path)


@pytest.fixture
def clock(played):
    return ManualClock(played[0].at + timedelta(minutes=5))


@pytest.fixture
def service(database, clock):
    return build_inhabited_service(database, clock)


def build_inhabited_service(database, clock):
    """Return a service with ana, an operator."""
    users.create_first_admin(database, "ada", at=clock.at)
    ada = users.load_local_caller(database, "ada")
    signing = SignIn(database, clock, chance, QUICK)
    users.create_account(database, ada, "ana", at=clock.at, role_assignments=PEOPLE["ana"])
    signing.set_password(ada, "ana", PASSWORD, at=clock.at)
    made = build_service(database, Authenticator(database, clock), clock, chance)
    return replace(made, sign_in=SignIn(database, clock, chance, QUICK))


def test_a_gain_is_the_same_live_and_approvers_see_what_the_model_brought(
    browser, played, database
):
    raised, found, expected = played
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    assert EvidenceCheck(database, "pricing").check_all().faults == []
    browser.as_("ana")
    page = browser.page(f"/rollouts/pricing/proposals/{raised.proposal}")
    assert "Gain of profit, per unit" in page
    assert " by the model, " in page
    assert "More profit per sale; measured by profit (EUR, more is better)." in page
    assert "against blind decisions, and its arm against the humans' arm, when" in page
    assert "What the model brought" in page
    assert "Readings of the ledger entry, in words" in page
    cell = raised.cell
    own_page = browser.page(f"/rollouts/pricing/cells/{cell.site}/{cell.window}")
    assert "gain of profit in EUR per unit, threshold -15" in own_page
    assert "Model's arm" in own_page
    assert "gain of profit" in browser.page("/rollouts/pricing")
    lede = re.search('<p class="lede">(.*?)</p>', browser.page("/rollouts/pricing/divergences"))[1]
    assert lede.startswith("Profit: better with the model in 0 of 2 comparisons, worse in 0. ")
    path = f"/rollouts/pricing/divergences?site={cell.site}&window={cell.window}"
    assert "in 0 of 1 comparison, worse in 0." in browser.page(path)
    listed = browser.page("/rollouts/pricing/proposals")
    assert "at least -15 EUR: +" in listed
    assert "log E" not in listed
