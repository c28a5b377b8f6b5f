"""What a new rule of familiar cases would send to humans, from the last month's records."""

import re
from datetime import timedelta

import pytest

from rollout.engine.decide.commands import Actor, AddVersion
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.access.authentication import Authenticator
from rollout.features.policies import familiar_preview
from rollout.features.policies.familiar_preview import describe_unfamiliar_effect
from rollout.features.policies.policies import preview_policy
from rollout.features.records.record_import import import_records
from rollout.kernel.calendar.instants import find_slot_after, to_instant
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.clock import ManualClock
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command, load_rollout_state
from rollout.live.service import build_service
from rollout.terminal.remote import format_changes
from tests.data.databases import on_sqlite
from tests.engine.slots.stories import Story, a_history
from tests.factories import DAY
from tests.live.test_live import BY_CASE
from tests.live.test_live_familiar import RULE, with_forms

SHORT = Story(
    seed=3, slots=20, busy=2.5, late=0.0, missing=0.0, quiet=False, versions=1, on_grid=True
)
RULED_TEXT = BY_CASE.replace("evidence: {", RULE)
PLAIN, RULED = parse_policy(BY_CASE), parse_policy(RULED_TEXT)
STRICT = parse_policy(BY_CASE.replace("evidence: {", RULE.replace("at_least: 4", "at_least: 1000")))


@pytest.fixture
def last(database):
    """Import records under the plain policy; return a time after them."""
    history = with_forms(a_history(SHORT, PLAIN))
    first = history.cases["occurred_at"].min() - timedelta(days=1)
    first = to_instant(find_slot_after(first, PLAIN.tick), PLAIN.tick)
    apply_policy(database, BY_CASE, Actor("zoe"), first, salt=bytes(32), service_salt=bytes(32))
    import_records(database, "story", history, first)
    for version in sorted(set(history.predictions["version"])):
        added = AddVersion(at=first, version=version)
        execute_command(database, "story", lambda _, command=added: command)
    return history.cases["occurred_at"].max() + timedelta(hours=1)


def preview(database, policy, at):
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "story")
        return describe_unfamiliar_effect(transaction, state, policy, at)


@pytest.mark.slow
@on_sqlite
def test_the_last_months_units_are_counted_by_version(database, last, monkeypatch):
    assert preview(database, PLAIN, last) == ()
    (text,) = preview(database, STRICT, last)
    count, total = text.split(" units of ")[0].split(" of ")
    assert count == total != "0"
    (text,) = preview(database, RULED, last)
    assert 0 < int(text.split(" of ")[0]) < int(total)
    assert text.split(" units ")[0].endswith(f" of {total}")
    service = build_service(database, Authenticator(database, ManualClock(last)), ManualClock(last))
    ada = Caller("ada", role_assignments=(AssignedRole("admin"),))
    plan = preview_policy(service, ada, RULED_TEXT, at=last)
    assert plan.changes.unfamiliar == (text,)
    (text,) = preview(database, RULED, last + 40 * DAY)
    assert text == "unknown, because the last 30 days have no case"
    monkeypatch.setattr(familiar_preview, "MAX_PREVIEWED_CASES", 3)
    (text,) = preview(database, RULED, last)
    assert re.fullmatch(r"[1-3] of [1-3] units of v1 in the newest 3 cases of 30 days \(.*\)", text)


def test_the_dry_run_prints_them():
    changes = dict.fromkeys(
        ("looser_texts", "required_approvals", "narrowed", "restarted", "cleared", "voided"), ()
    )
    changes |= {"outcome": "apply", "unfamiliar": ("88 of 3,176 units of v1",)}
    text = format_changes({"rollout": "mail", "changes": changes})
    assert text.endswith("\n  not familiar, decided by humans: 88 of 3,176 units of v1")
