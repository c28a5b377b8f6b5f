"""The house chain has the form of a ledger: it verifies, comes back, and is no scope."""

from dataclasses import replace

import pytest

from rollout.core.evolve import fold
from rollout.core.house import (
    HOUSE_KINDS,
    KeyMade,
    LinkMade,
    PersonAdded,
    RightGiven,
)
from rollout.core.ledger import BrokenChainError, chain, event_of, verified
from rollout.core.scope import Scope
from tests.factories import DAY, NOON

EVENTS = (
    PersonAdded(at=NOON, by="ana", person="ana", machine=False),
    RightGiven(at=NOON, by="ana", person="ana", role="admin"),
    PersonAdded(at=NOON, by="ana", person="box", machine=True),
    RightGiven(at=NOON, by="ana", person="box", role="ingest", rollout="ramps", site="ramp-a"),
    KeyMade(at=NOON, by="ana", person="box", prefix="00ff", expires_at=NOON + DAY),
    LinkMade(at=NOON, by="policy", person="", expires_at=NOON + DAY),
)


def test_every_kind_is_written_and_read_back():
    rows = list(chain(":house", EVENTS))
    assert tuple(map(event_of, rows)) == EVENTS
    assert list(verified(row.text() for row in rows)) == rows


def test_a_right_that_was_written_in_later_is_found():
    lines = [row.text() for row in chain(":house", EVENTS)]
    lines[3] = lines[3].replace("ingest", "viewer")
    with pytest.raises(BrokenChainError, match="line 4"):
        list(verified(lines))


def test_people_change_no_scope():
    assert replace(fold(EVENTS), at=None, revision=0) == Scope()


def test_no_kind_has_a_place_for_a_secret():
    fields = {name for kind in HOUSE_KINDS.values() for name in kind.__dataclass_fields__}
    assert fields == {
        *("at", "by", "person", "machine", "issuer"),
        *("role", "rollout", "site", "group", "prefix", "expires_at"),
    }
