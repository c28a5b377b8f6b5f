"""Rows of a wrong shape are found: a file's author can hash anything."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.events import (
    CasesErased,
    PolicyApplied,
    ProposalRaised,
    ProposalVoided,
    Stopped,
    Suspended,
)
from rollout.engine.ledger.access_events import ACCESS_KINDS
from rollout.engine.ledger.ledger import (
    BrokenLedgerError,
    LedgerText,
    build_row,
    find_shape_fault,
    verify_lines,
)
from tests.engine.ledger.golden import ACCESS, ROLLOUT
from tests.engine.ledger.test_ledger import events, of_kind
from tests.factories import CREEK, NOON, SALTS

access_events = st.one_of([of_kind(kind) for kind in ACCESS_KINDS.values()])
ERASED = build_row(
    "bears",
    1,
    CasesErased(at=NOON, by="ada", keys=("0f",), tables=("cases",), counts=(1,), reason="asked"),
    "",
    salts=SALTS,
)
STOPPED = build_row(
    "bears", 1, Stopped(at=NOON, by="ada", stop="S-1", cells=(CREEK,)), "", salts=SALTS
)


POLICY = {"at": NOON, "by": "policy"}
LOOSER = {"kind": "audit", "values": {"stage": "autonomous", "new": "0.05"}}
READING = {
    "condition": {"measure": "agreement", "threshold": "0.9"},
    "counts": [2, 0],
    "log_e": "0.1",
    "risk": "0.05",
}


@given(events | access_events)
def test_no_written_row_has_a_fault(event):
    assert find_shape_fault(build_row("bears", 1, event, "", salts=SALTS)) == ""


@pytest.mark.parametrize("lines", [ROLLOUT, ACCESS])
def test_no_row_of_a_golden_ledger_has_a_fault(lines):
    assert {find_shape_fault(row) for row in verify_lines(lines)} == {""}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"keys": "0f"}, "its `keys` has a wrong type"),
        ({"keys": [7]}, "its `keys` has a wrong type"),
        ({"counts": [True]}, "its `counts` has a wrong type"),
        ({"episode": None}, "its `episode` has a wrong type"),
        ({"names": ["ada"]}, "an entry CasesErased has no `names`"),
    ],
)
def test_a_field_of_a_wrong_type_is_named(body, fault):
    assert find_shape_fault(replace(ERASED, body=ERASED.body | body)) == fault


@pytest.mark.parametrize("cell", [{}, {"site": "creek"}, {"site": "creek", "window": 7}, "creek"])
def test_a_wrong_cell_is_named(cell):
    row = replace(STOPPED, body=STOPPED.body | {"cells": [cell]})
    assert find_shape_fault(row) == "its `cells` has a wrong type"


ALARM = {"condition": {"measure": "agreement", "threshold": "0.9"}, "against": 2, "records": 9}


@pytest.mark.parametrize(
    "alarm",
    [
        "agreement at least 90 %: 2 of 9 blind decisions disagree",
        {},
        ALARM | {"condition": {"measure": "luck", "threshold": "0.9"}},
        ALARM | {"against": "2"},
        ALARM | {"against": True},
        ALARM | {"records": 0},  # left out where it is the default
        ALARM | {"over": "a week"},
        ALARM | {"subject": {"value": "b"}},
        ALARM | {"note": "all good"},
    ],
)
def test_a_wrong_alarm_is_named(alarm):
    event = Suspended(at=NOON, by="policy", cell=CREEK, version="v1", guard="agreement>=0.9")
    row = build_row("bears", 1, event, "", salts=SALTS)
    assert find_shape_fault(replace(row, body=row.body | {"alarms": [ALARM]})) == ""
    wrong = replace(row, body=row.body | {"alarms": [alarm]})
    assert find_shape_fault(wrong) == "its `alarms` has a wrong type"


@pytest.mark.parametrize(
    "reading",
    [
        "agreement at least 95 %: 2 of 2",
        {},
        READING | {"condition": {"measure": "luck", "threshold": "0.9"}},
        READING | {"condition": {"measure": "agreement", "threshold": "0.90"}},
        READING | {"counts": ["2"]},
        READING | {"counts": 2},
        READING | {"risk": "0"},
        READING | {"log_e": "nan"},
        READING | {"note": "all good"},
    ],
)
def test_a_reading_that_cannot_be_said_is_named(reading):
    fields = {"cell": CREEK, "proposal": "P-1", "kind": "widening", "evidence_hash": "0f"}
    raised = ProposalRaised(at=NOON, by="policy", expires_at=NOON, needs=(), **fields)
    row = build_row("bears", 1, raised, "", salts=SALTS)
    assert find_shape_fault(replace(row, body=row.body | {"readings": [READING]})) == ""
    faulty = replace(row, body=row.body | {"readings": [reading]})
    assert find_shape_fault(faulty) == "its `readings` has a wrong type"


@pytest.mark.parametrize(
    "looser",
    [
        "autonomous: fewer audits, 5 %",
        {},
        {"kind": "luck", "values": {}},
        {"kind": "audit", "values": {"stage": "autonomous"}},
        {"kind": "audit", "values": {"stage": "autonomous", "new": "few"}},
        LOOSER | {"cells": []},
    ],
)
def test_a_looser_rule_that_cannot_be_said_is_named(looser):
    row = build_row(
        "bears", 1, PolicyApplied(**POLICY, number=2, policy_hash="0f"), "", salts=SALTS
    )
    assert find_shape_fault(replace(row, body=row.body | {"loosens": [LOOSER]})) == ""
    faulty = replace(row, body=row.body | {"loosens": [looser]})
    assert find_shape_fault(faulty) == "its `loosens` has a wrong type"


@pytest.mark.parametrize(
    "trigger",
    [
        "a write failed",
        {},
        {"kind": "luck", "values": {}},
        {"kind": "lost-head", "values": {}},
        {"kind": "forbidden", "values": {"later": "luck"}},
        {"kind": "clocks-apart", "values": {"clocks": {"wall": "noon"}}},
    ],
)
def test_a_trigger_that_cannot_be_said_is_named(trigger):
    body = {"trigger": {"kind": "lost-head", "values": {"revision": "2-57"}}}
    assert find_shape_fault(replace(STOPPED, body=STOPPED.body | body)) == ""
    faulty = replace(STOPPED, body=STOPPED.body | {"trigger": trigger})
    assert find_shape_fault(faulty) == "its `trigger` has a wrong type"


def test_a_cause_without_words_is_named():
    voided = ProposalVoided(**POLICY, proposal="P-1", cause="luck")
    row = build_row("bears", 1, voided, "", salts=SALTS)
    assert find_shape_fault(row) == "its `cause` has no words: luck"


@pytest.mark.parametrize("name", ["keys", "tables", "counts"])
def test_a_missing_field_is_named(name):
    body = {key: value for key, value in ERASED.body.items() if key != name}
    assert find_shape_fault(replace(ERASED, body=body)) == f"it lacks `{name}`"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("rollout", ["bears"]), ("revision", True), ("at", "noon"), ("slot", "noon")),
        *(("actor", None), ("body", ["keys"]), ("access_head", "1")),
    ],
)
def test_a_column_of_a_wrong_type_is_named(column, value):
    assert (
        find_shape_fault(replace(ERASED, **{column: value})) == f"its `{column}` has a wrong type"
    )


@pytest.mark.parametrize(
    "odd",
    [
        {"body": ["keys"]},
        {"texts": {"reason": LedgerText(b"salt", 7)}},
        {"kind": ["CasesErased"]},
    ],
)
def test_no_odd_row_stops_the_verification_with_another_error(odd):
    with pytest.raises(BrokenLedgerError, match="line 1: "):
        list(verify_lines([replace(ERASED, **odd).format()]))
