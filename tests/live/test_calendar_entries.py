"""The ledger says with which calendar data its service counts, and when they changed."""

from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.commands import Actor
from rollout.engine.events import CalendarDataSet
from rollout.engine.words.event_text import describe_events
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live import calendar_entries
from rollout.live.calendar_entries import (
    CalendarEntries,
    compute_holiday_digest,
    compute_zone_digest,
)
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from tests.data.databases import on_sqlite
from tests.factories import DAY, NOON

POLICY = """
rollout: shop
timezone: Europe/Vienna
levers: [{id: price, labels: [low, high]}]
sites: [{id: kiosk, country: AT}, {id: stall, timezone: Asia/Tokyo}]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 80%}]}]
"""


def list_entries(database):
    with database.begin_read() as transaction:
        ledger = Ledger(transaction, load_rollout_state(transaction, "shop").rollout)
        events = list(ledger.list_events())
    return [event for event in events if isinstance(event, CalendarDataSet)]


@on_sqlite
def test_an_entry_is_written_when_the_data_of_a_process_differ(database, monkeypatch):
    apply_policy(database, POLICY, Actor("zoe"), NOON - DAY, salt=bytes(32), service_salt=bytes(32))
    for _ in range(2):  # a process that starts again finds its data in the ledger
        entries = CalendarEntries(database)
        entries.write(NOON)
        entries.write(NOON)
    (first,) = list_entries(database)
    assert first.changed == ()
    assert first.holidays.startswith(f"{NOON.year} ")
    monkeypatch.setattr(calendar_entries, "compute_zone_digest", lambda *_: "ab12")
    CalendarEntries(database).write(NOON + DAY)
    _, second = list_entries(database)
    assert (second.changed, second.time_zones) == (("time_zones",), "ab12")
    (described,) = describe_events(parse_policy(POLICY), [second], NOON, NOON)
    assert described.text.startswith("time-zone data changed: program ")
    assert described.text.endswith("past days may lie in other windows than before")


@on_sqlite
def test_a_new_year_has_new_holidays(database):
    apply_policy(database, POLICY, Actor("zoe"), NOON - DAY, salt=bytes(32), service_salt=bytes(32))
    entries = CalendarEntries(database)
    entries.write(NOON)
    entries.write(NOON + 365 * DAY)
    _, second = list_entries(database)
    assert "holidays" in second.changed


def test_digests_tell_zones_countries_and_years_apart():
    digests = {
        compute_holiday_digest(["AT"], 2026),
        compute_holiday_digest(["DE"], 2026),
        compute_holiday_digest(["AT"], 2027),
        compute_zone_digest(["Europe/Vienna"], 2026),
        compute_zone_digest(["UTC"], 2026),
    }
    assert len(digests) == 5
    assert compute_holiday_digest([], 2026) == ""
