"""Rows of form 1 are read for ever: own hash and names, today's events, the same scope."""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path

import pytest

from rollout.core.access.access_events import ACCESS_KINDS, UserAdded, build_access_state
from rollout.core.access.accounts import AccountNames
from rollout.core.ledger.form1 import KINDS_OF_FORM_1
from rollout.core.ledger.ledger import (
    BrokenLedgerError,
    build_ledger,
    build_row,
    form_changed_row,
    list_stored_kinds,
    parse_event,
    verify_lines,
)
from rollout.core.scope.events import (
    EVENT_TYPES,
    EraBegan,
    FormChanged,
    IncidentOpened,
    ProposalRaised,
    RulesApplied,
    Stopped,
    VersionFirstUsed,
)
from rollout.core.scope.projection import apply_event, apply_events
from rollout.core.scope.record_events import RecordsCounted
from rollout.core.scope.scope import CellState, PortfolioPlace, Scope, Version
from rollout.store.ledger.scopes import to_plain
from tests.factories import CREEK, NOON, SALTS

CHAINS = Path(__file__).parent / "chains"
OLD = (CHAINS / "rollout-form-1.jsonl").read_text(encoding="utf-8").splitlines()
OLD_ACCESS = (CHAINS / "access-form-1.jsonl").read_text(encoding="utf-8").splitlines()
RENAMED = {"unpermitted": "unauthorized", "rewound": "ledger_rolled_back"}
NAMES = AccountNames.from_ids({"ana": "u-aaaaaaaaaaaaaaaa", "cam-7": "u-cccccccccccccccc"})
LATER = [
    Stopped(at=NOON, by="ana", stop="S-41", cells=(CREEK,), reason="smoke"),
    VersionFirstUsed(at=NOON, by="policy", version="v3"),
]


def mixed(events=LATER):
    """Return the old lines, the row that ends form 1, and rows of form 2 after it."""
    rows = list(verify_lines(OLD))
    rows.append(form_changed_row("bear-alarm", (len(rows), rows[-1].hash), NOON, "policy"))
    for event in events:
        last = rows[-1]
        rows.append(
            build_row("bear-alarm", last.revision + 1, event, last.hash, salts=SALTS, names=NAMES)
        )
    return [row.format() for row in rows]


def broken(lines):
    with pytest.raises(BrokenLedgerError) as caught:
        list(verify_lines(lines))
    return str(caught.value)


def rehashed(lines, number, **changes):
    """Return lines of which one is changed and hashed anew; those after it are left out."""
    row = list(verify_lines(lines[:number]))[-1]
    return [*lines[: number - 1], replace(row, **changes).format()]


# Form 1


def test_a_chain_of_form_1_verifies_with_the_hashes_that_it_had():
    rows = list(verify_lines(OLD))
    assert [row.hash for row in rows] == [json.loads(line)["hash"] for line in OLD]
    assert {row.form for row in rows} == {1}
    assert [row.format() for row in rows] == OLD


def test_a_chain_of_form_1_has_every_kind_that_there_was():
    kinds = {row.kind for row in verify_lines(OLD)} | {row.kind for row in verify_lines(OLD_ACCESS)}
    assert kinds == KINDS_OF_FORM_1.keys() - {"FormChanged"}


def test_every_row_of_form_1_is_an_event_of_today():
    events = [parse_event(row) for row in verify_lines(OLD)]
    assert {type(event).__name__ for event in events} <= EVENT_TYPES.keys()
    narrowed = next(e for e in events if type(e).__name__ == "Narrowed")
    assert (narrowed.from_stage, narrowed.to_stage) == ("autonomous", "supervised")
    assert narrowed.reason == "agreement fell to 0.80"
    assert KINDS_OF_FORM_1.keys() - {"FormChanged"} == {
        row.kind for lines in (OLD, OLD_ACCESS) for row in verify_lines(lines)
    }
    assert set(KINDS_OF_FORM_1.values()) <= EVENT_TYPES.keys() | ACCESS_KINDS.keys()


def test_a_chain_of_form_1_folds_to_the_scope_that_it_folded_to_before():
    kept = (CHAINS / "rollout-form-1.scope.json").read_text(encoding="utf-8")
    for then, now in RENAMED.items():
        kept = kept.replace(f'"{then}"', f'"{now}"')
    scope = apply_events(map(parse_event, verify_lines(OLD)))
    assert (scope.rules, scope.era, scope.attempt_years) == (1, 1, {})
    assert (scope.counting_starts, scope.aliases, scope.cell_values) == ({}, {}, {})
    for state in scope.cells.values():  # later attempts of a version have its own smaller shares
        assert (state.has_begun, state.number) == (False, 0)
        assert state.risk_share == (1 if state.attempt == 1 else 1 / 6)
        assert state.attempt <= 2
    assert write_as_before(scope) == json.loads(kept)


def write_as_before(value):
    """Return a scope as JSON values without the fields that came later."""
    if not isinstance(value, Scope | CellState | Version):
        return to_plain(value)
    later = {
        "rules",
        "era",
        "attempt_years",
        "counting_starts",
        "aliases",
        "content",
        "cell_values",
        "effective_at",
        "returned_at",
        "evidence_pauses",
        "portfolios",
    }
    later |= {"has_begun", "number", "year", "risk_share", "cleared_at", "detectors"}
    later |= {"counts_since", "counts_held_since"}
    return [
        [[to_plain(key), write_as_before(item)] for key, item in part.items()]
        if isinstance(part := getattr(value, field.name), Mapping)
        else to_plain(part)
        for field in fields(value)
        if field.name not in later
    ]


def test_a_house_chain_of_form_1_comes_to_the_same_accounts_roles_and_keys():
    found = build_access_state(map(parse_event, verify_lines(OLD_ACCESS)))
    assert found.people == {"ana", "bo", "cam-7", "cy"}
    assert found.machines == {"cam-7"}
    assert {(name, right.role) for name, right in found.rights} == {
        ("ana", "admin"),
        ("cam-7", "ingest"),
    }
    assert found.keys == {("cam-7", "rk_2")}


def test_rows_are_looked_for_under_the_kinds_of_both_forms():
    assert list_stored_kinds({"GrantExpired", "RulesApplied"}) == {
        "GrantExpired",
        "Lapsed",
        "RulesApplied",
    }


# From form 1 to form 2


def test_a_chain_goes_on_in_form_2_after_the_row_that_holds_its_head():
    rows = list(verify_lines(mixed()))
    assert [row.form for row in rows] == [1] * (len(OLD) + 1) + [2, 2]
    changed = parse_event(rows[len(OLD)])
    assert changed == FormChanged(
        at=NOON, by="policy", form=2, revision=len(OLD), head=rows[len(OLD) - 1].hash
    )


def test_a_mixed_chain_folds_as_if_it_had_one_form():
    events = [parse_event(replace(row, names=NAMES)) for row in verify_lines(mixed())]
    before = apply_events(map(parse_event, verify_lines(OLD)))
    after = apply_events(LATER, replace(before, revision=before.revision + 1))
    assert apply_events(events) == after
    assert after.stops["S-41"].by == "ana"


def test_changing_the_form_changes_nothing_else_of_the_scope():
    before = apply_events(map(parse_event, verify_lines(OLD)))
    after = apply_events(map(parse_event, verify_lines(mixed([]))))
    last = {"at": before.at, "effective_at": before.effective_at, "revision": before.revision}
    assert replace(after, **last) == before


def test_form_2_does_not_follow_form_1_by_itself():
    lines = mixed()
    rows = list(verify_lines(lines))
    follows = replace(rows[-1], revision=len(OLD) + 1, previous=rows[len(OLD) - 1].hash)
    assert "is of form 2, unlike the line before it" in broken([*OLD, follows.format()])


def test_form_1_does_not_go_on_after_its_last_row():
    lines = mixed([])
    rows = list(verify_lines(lines))
    again = replace(rows[0], revision=len(lines) + 1, previous=rows[-1].hash)
    assert "is of form 1, unlike the line before it" in broken([*lines, again.format()])


@pytest.mark.parametrize(
    "body",
    [
        {"form": 2, "revision": len(OLD) - 1, "head": json.loads(OLD[-1])["hash"]},
        {"form": 2, "revision": len(OLD), "head": json.loads(OLD[-2])["hash"]},
        {"form": 3, "revision": len(OLD), "head": json.loads(OLD[-1])["hash"]},
    ],
    ids=["another revision", "another hash", "another form"],
)
def test_the_last_row_of_form_1_names_the_head_that_it_follows(body):
    assert "another head" in broken(rehashed(mixed([]), len(OLD) + 1, body=body))


def test_a_chain_of_form_2_has_no_form_to_change():
    event = FormChanged(at=NOON, by="policy", form=2, revision=0, head="")
    assert "another head" in broken([build_row("r", 1, event, "", salts=SALTS).format()])


# Form 2: accounts


def test_a_row_of_form_2_holds_ids_and_no_names():
    lines = mixed()[-2:]
    assert not any('"ana"' in line for line in lines)
    stopped, seen = list(verify_lines(mixed()))[-2:]
    assert (stopped.actor, seen.actor) == ("u-aaaaaaaaaaaaaaaa", "policy")
    assert parse_event(replace(stopped, names=NAMES)) == LATER[0]
    assert parse_event(stopped).by == "u-aaaaaaaaaaaaaaaa"


def test_fields_that_name_accounts_hold_ids_too():
    added = UserAdded(at=NOON, by="ana", user="cam-7", service_account=True)
    row = build_row(":house", 1, added, "", salts=SALTS, names=NAMES)
    assert row.body["user"] == "u-cccccccccccccccc"
    assert parse_event(row) == added


@pytest.mark.parametrize(
    ("kind", "about", "text"),
    [("ledger_rolled_back", "u-cccccccccccccccc", None), ("unauthorized", None, "cam-7")],
)
def test_an_incident_holds_an_account_by_its_id_and_a_case_as_text(kind, about, text):
    opened = IncidentOpened(
        at=NOON, by="policy", incident="I-1", kind=kind, effect="e", reason="r", about="cam-7"
    )
    row = build_row("r", 1, opened, "", salts=SALTS, names=NAMES)
    assert row.body.get("about") == about
    assert ("about" in row.texts) == (text is not None)
    assert parse_event(row) == opened
    assert parse_event(replace(row, texts={})).about == ("cam-7" if about else "")


def test_an_incident_written_before_cases_were_texts_still_names_its_case():
    opened = IncidentOpened(
        at=NOON, by="policy", incident="I-1", kind="unauthorized", effect="e", reason="r"
    )
    row = build_row("r", 1, opened, "", salts=SALTS, names=NAMES)
    assert parse_event(replace(row, body={**row.body, "about": "kestrel"})).about == "kestrel"


# Form 2: free text


def test_text_stands_beside_the_hashed_row():
    row = build_row("r", 1, LATER[0], "", salts=SALTS)
    assert "reason" not in row.body
    assert row.body["reason_hash"] == row.texts["reason"].hash
    (read,) = verify_lines([row.format()])
    assert parse_event(read) == LATER[0]
    assert read.erased == ()


def test_an_erased_text_is_no_fault_and_leaves_the_hash():
    row = build_row("r", 1, LATER[0], "", salts=SALTS)
    (read,) = verify_lines([replace(row, texts={}).format()])
    assert read.hash == row.hash
    assert read.erased == ("reason",)
    assert parse_event(read).reason == ""


def test_another_text_than_the_hashed_one_is_found():
    row = build_row("r", 1, LATER[0], "", salts=SALTS)
    other = {"reason": replace(row.texts["reason"], text="fire")}
    assert "its text `reason` is not the one that was hashed" in broken(
        [replace(row, texts=other).format()]
    )


def test_a_text_that_no_hash_stands_for_is_found():
    row = build_row("r", 1, LATER[0], "", salts=SALTS)
    more = {**row.texts, "note": row.texts["reason"]}
    assert "its text `note`" in broken([replace(row, texts=more).format()])


def test_an_empty_text_has_no_hash():
    row = build_row("r", 1, replace(LATER[0], reason=""), "", salts=SALTS)
    assert "reason_hash" not in row.body
    assert not row.texts


def test_the_same_text_has_another_hash_in_another_row():
    first, second = build_ledger("r", [LATER[0], LATER[0]], SALTS)
    assert first.body["reason_hash"] != second.body["reason_hash"]


# Form 2: what later versions fill


def test_the_slot_of_a_tick_stands_in_the_row():
    slot = NOON - timedelta(minutes=15)
    event = replace(LATER[1], slot=slot)
    row = build_row("r", 1, event, "", salts=SALTS)
    assert row.slot == row.at - 15 * 60 * 1_000_000
    (read,) = verify_lines([row.format()])
    assert parse_event(read) == event


@pytest.mark.parametrize(
    "event",
    [
        RecordsCounted(at=NOON, by="policy", slot=NOON, records=12, digest="ab" * 32),
        RulesApplied(at=NOON, by="ana", number=2),
        EraBegan(at=NOON, by="ana", era=2, reason="the disk of Monday"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_kinds_that_later_versions_write_read_and_change_the_rules_alone(event):
    row = build_row("r", 1, event, "", salts=SALTS)
    (read,) = verify_lines([row.format()])
    assert parse_event(read) == event
    scope = apply_event(Scope(), event)
    assert (scope.at, scope.effective_at) == (NOON, NOON)
    assert replace(scope, at=None, effective_at=None, revision=0) == Scope(
        rules=2 if isinstance(event, RulesApplied) else 1,
        era=2 if isinstance(event, EraBegan) else 1,
    )


RAISED = ProposalRaised(
    at=NOON, by="policy", proposal="P-1", kind="widening", expires_at=NOON, needs=(),
    evidence_hash="e",
)  # fmt: skip
MORE = {
    "records_digest": "ab" * 32,
    "attempt": 3,
    "risk_weight": "0.0024",
    "confidence_floor": "0.8",
    "sources": ("reviews",),
    "outcome_sources": ("imports 3",),
}


def test_fields_that_later_versions_fill_stand_in_no_row_while_empty():
    row = build_row("r", 1, RAISED, "", salts=SALTS)
    assert not MORE.keys() & row.body.keys()


@pytest.mark.parametrize("name", sorted(MORE.keys() - {"confidence_floor"}))
def test_fields_that_later_versions_fill_read_and_change_no_scope(name):
    event = replace(RAISED, **{name: MORE[name]})
    (read,) = verify_lines([build_row("r", 1, event, "", salts=SALTS).format()])
    assert parse_event(read) == event
    assert apply_events([event]) == apply_events([RAISED])


def test_the_floors_of_a_row_are_those_of_its_proposal():
    event = replace(RAISED, confidence_floor="0.8", stricter_floors=("0.97",))
    (read,) = verify_lines([build_row("r", 1, event, "", salts=SALTS).format()])
    assert apply_events([parse_event(read)]).proposals["P-1"].floors == ("0.8", "0.97")
    assert apply_events([RAISED]).proposals["P-1"].floors == ()


def test_the_portfolio_of_a_row_is_that_of_its_proposal():
    seen = VersionFirstUsed(at=NOON, by="policy", version="v1")
    listed = replace(
        RAISED,
        cell=CREEK,
        version="v1",
        portfolio="supervised 3f2a 2027",
        portfolio_cells=8,
        portfolio_opened=2,
        portfolio_rank=1,
        portfolio_score="1.386295",
    )
    (read,) = verify_lines([build_row("r", 1, listed, "", salts=SALTS).format()])
    place = apply_events([seen, parse_event(read)]).proposals["P-1"].place
    assert place == PortfolioPlace("supervised 3f2a 2027", 8, CREEK, "v1", 1, 1.386295)
    assert apply_events([RAISED]).proposals["P-1"].place is None
    floored = replace(listed, confidence_floor="0.8", portfolio_floors=3)
    place = apply_events([seen, floored]).proposals["P-1"].place
    assert (place.size, place.floor) == (24, "0.8")
    assert place.question == (CREEK, "v1", 1, "0.8")
