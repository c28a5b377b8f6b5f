"""The access ledger has the form of a ledger: it verifies, comes back, and is no scope."""

from dataclasses import fields, replace

import pytest

from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import Scope
from rollout.engine.ledger.access_events import (
    ACCESS_KINDS,
    KeyCreated,
    OneTimeLinkCreated,
    RoleGranted,
    UserAdded,
)
from rollout.engine.ledger.ledger import BrokenLedgerError, build_ledger, parse_event, verify_lines
from tests.factories import DAY, NOON, SALTS

EVENTS = (
    UserAdded(at=NOON, by="ana", user="ana", service_account=False),
    RoleGranted(at=NOON, by="ana", user="ana", role="admin"),
    UserAdded(at=NOON, by="ana", user="box", service_account=True),
    RoleGranted(at=NOON, by="ana", user="box", role="ingest", rollout="ramps", site="ramp-a"),
    KeyCreated(at=NOON, by="ana", user="box", prefix="00ff", expires_at=NOON + DAY),
    OneTimeLinkCreated(at=NOON, by="policy", user="", expires_at=NOON + DAY),
)


def test_every_kind_is_written_and_read_back():
    rows = list(build_ledger(":access", EVENTS, SALTS))
    assert tuple(map(parse_event, rows)) == EVENTS
    assert list(verify_lines(row.format() for row in rows)) == rows


def test_a_right_that_was_written_in_later_is_found():
    lines = [row.format() for row in build_ledger(":access", EVENTS, SALTS)]
    lines[3] = lines[3].replace("ingest", "viewer")
    with pytest.raises(BrokenLedgerError, match="line 4"):
        list(verify_lines(lines))


def test_people_change_no_scope():
    assert replace(apply_events(EVENTS), at=None, effective_at=None, revision=0) == Scope()


def test_no_kind_has_a_place_for_a_secret():
    names = {field.name for kind in ACCESS_KINDS.values() for field in fields(kind)}
    assert names == {
        *("at", "by", "slot", "user", "service_account", "issuer"),
        *("role", "rollout", "site", "group", "prefix", "expires_at"),
        "public_key",  # the half that proves nothing without the private one
        *("credentials", "link"),  # digests
        "credential",  # which kind of it was replaced
        "reason",  # of an erasure, beside the row
    }
