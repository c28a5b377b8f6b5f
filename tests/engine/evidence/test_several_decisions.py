"""Decisions of several people on one case: which count for gates, and which for guards."""

from dataclasses import replace

import pytest

from rollout.kernel.calendar.instants import find_slot_after
from rollout.kernel.units import AGREE, DIFFER, MISSING, WHOLE_UNIT
from tests.engine.evidence.histories import (
    ALARM,
    a_policy,
    cases,
    decisions,
    evidence,
    hour,
    only,
    predictions,
    records,
    resolved,
    track,
)

POLICY = a_policy()
THREE = evidence(POLICY, verdicts=3)


def slot(number):
    return find_slot_after(hour(number), POLICY.tick)


def test_seats_order_the_verdicts_and_the_second_one_is_for_the_human_ceiling():
    given = decisions(
        ("a", "fox", {"reviewer": "ana", "seat": 2, "at": 10.1}),
        ("a", "bear", {"reviewer": "bo", "seat": 1, "at": 10.9}),
    )
    row = only(resolved(records(cases(("a", 10)), predictions(("a", "bear")), given), POLICY))
    assert (row["decided"], row["second"], row["reviewer"]) == ("bear", "fox", "bo")


def test_without_seats_the_earlier_verdict_is_the_first():
    given = decisions(
        ("a", "fox", {"reviewer": "ana", "at": 10.9}),
        ("a", "bear", {"reviewer": "bo", "at": 10.1}),
    )
    row = only(resolved(records(cases(("a", 10)), predictions(("a", "bear")), given), POLICY))
    assert (row["decided"], row["second"]) == ("bear", "fox")


def test_an_empty_first_seat_is_missing_whatever_the_second_says():
    given = decisions(("a", "bear", {"seat": 2}))
    row = only(resolved(records(cases(("a", 10)), predictions(("a", "bear")), given), POLICY))
    assert row["decided"] == MISSING


@pytest.mark.parametrize(
    ("seats", "decided"),
    [((1, 1), "bear"), ((1, None), "bear"), ((None, 1), "fox"), ((2, None), MISSING)],
)
def test_two_people_in_one_seat_are_still_one_unit(seats, decided):
    given = decisions(
        ("a", "bear", {"reviewer": "ana", "seat": seats[0], "at": 10.1}),
        ("a", "fox", {"reviewer": "bo", "seat": seats[1], "at": 10.2}),
    )
    frame = resolved(records(cases(("a", 10)), predictions(("a", "bear")), given), POLICY)
    assert only(frame)["decided"] == decided
    assert only(frame, "guard")["decided"] == "bear"


@pytest.mark.parametrize("seats", [(1, 2), (2, 1), (None, None), (1, None)])
@pytest.mark.parametrize("first", [None, "fox"])
def test_guards_count_the_first_answer_that_comes_for_whichever_seat(seats, first):
    """Nobody hides a colleague's answer by being unsure, nor by not coming."""
    given = decisions(
        ("a", first, {"reviewer": "ana", "seat": seats[0], "at": 10.1}),
        ("a", "fox" if first is None else "bear", {"reviewer": "bo", "seat": seats[1], "at": 11}),
        ("a", "bear", {"reviewer": "cy", "seat": seats[1], "at": 9.9, "received": 11.5}),
    )
    frame = resolved(
        records(cases(("a", 10)), predictions(("a", "bear", {"at": 9})), given), POLICY
    )
    row, came = only(frame, "guard"), 11 if first is None else 10.1
    assert (row["decided"], row["slot"]) == ("fox", slot(came))


@pytest.mark.parametrize(("exposure", "name"), [("blind", "guard"), ("assisted", "assisted")])
def test_guards_count_an_answer_that_its_reviewer_took_back(exposure, name):
    taken_back = decisions(("a", "fox", {"exposure": exposure, "at": 10.1}))
    now = decisions(("a", "bear", {"exposure": "revealed", "at": 10.5}))
    history = records(cases(("a", 10)), predictions(("a", "bear")), now)
    frame = resolved(replace(history, earlier_decisions=taken_back), POLICY)
    assert only(frame)["decided"] == MISSING
    assert [row["decided"] for row in track(frame, name)] == ["fox"]


TWO_LEVERS = ("alarm", "siren")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (("fox", None), {"alarm": ("bear", "fox"), WHOLE_UNIT: (DIFFER, AGREE)}),
        (("bear", None), {"alarm": ("bear", "bear")}),
        ((None, None), {}),
        (
            ("bear", "fox"),
            {
                "alarm": ("bear", "bear"),
                "siren": ("bear", "fox"),
                WHOLE_UNIT: (DIFFER, AGREE),
            },
        ),
    ],
)
def test_guards_count_the_levers_that_a_decision_answers(answer, expected):
    """What differs in one lever does so whatever a person would have said of the other."""
    policy = a_policy(levers=tuple(replace(ALARM, id=name) for name in TWO_LEVERS))
    history = records(
        cases(("a", 10)),
        predictions(("a", "bear"), levers=TWO_LEVERS),
        decisions(("a", answer), levers=TWO_LEVERS),
    )
    frame = resolved(history, policy)
    rows = track(frame, "guard")
    assert {row["lever"]: (row["predicted"], row["decided"]) for row in rows} == expected
    alarm_cost = {row["lever"]: row["cost"] for row in rows}.get("alarm")
    if answer[1] is None and WHOLE_UNIT in expected:
        assert {row["cost"] for row in rows} == {alarm_cost}
    assert {row["decided"] for row in track(frame)} >= ({MISSING} if None in answer else {AGREE})


def test_a_second_verdict_after_grace_is_not_known_when_the_unit_closes():
    given = decisions(
        ("a", "bear", {"reviewer": "ana", "at": 10.1}),
        ("a", "fox", {"reviewer": "bo", "at": 20}),
    )
    row = only(resolved(records(cases(("a", 10)), predictions(("a", "bear")), given), POLICY))
    assert (row["decided"], row["second"]) == ("bear", MISSING)


def test_a_second_verdict_that_is_not_in_yet_is_missing_on_the_guard_track():
    given = decisions(
        ("a", "bear", {"reviewer": "ana", "at": 10.1}),
        ("a", "fox", {"reviewer": "bo", "at": 10.2}),
    )
    frame = resolved(records(cases(("a", 10)), predictions(("a", "bear")), given), POLICY)
    assert (only(frame)["second"], only(frame, "guard")["second"]) == ("fox", MISSING)


def three(*said, at=(10.1, 10.2, 10.3)):
    given = decisions(*(("a", s, {"reviewer": f"r{i}", "at": at[i]}) for i, s in enumerate(said)))
    return resolved(records(cases(("a", 10)), predictions(("a", "bear")), given), THREE)


@pytest.mark.parametrize(
    ("said", "decided"),
    [
        (("fox", "bear", "bear"), "bear"),
        (("fox", "bear", "none"), MISSING),
        (("bear", "bear"), "bear"),
        (("bear",), MISSING),
        (("bear", None, None), MISSING),
        ((None, None, "bear"), MISSING),
        (("fox", "bear", "bear", "fox", "fox"), "bear"),
    ],
)
def test_of_three_verdicts_the_majority_counts_for_gates_and_none_is_missing(said, decided):
    frame = three(*said, at=[10.1 + i / 10 for i in range(len(said))])
    assert only(frame)["decided"] == decided


def test_of_three_verdicts_the_first_counts_for_guards():
    row = only(three("fox", "bear", "bear"), "guard")
    assert (row["decided"], row["slot"]) == ("fox", slot(11))


def test_a_third_verdict_after_grace_does_not_undo_a_majority():
    assert only(three("bear", "bear", "fox", at=(10.1, 10.2, 30)))["decided"] == "bear"
    assert only(three("bear", "fox", "bear", at=(10.1, 10.2, 30)))["decided"] == MISSING


def test_of_three_seats_an_empty_one_leaves_a_majority_and_the_first_to_come_is_the_guards():
    given = decisions(
        ("a", "bear", {"reviewer": "ana", "seat": 2, "at": 11}),
        ("a", "bear", {"reviewer": "bo", "seat": 3, "at": 10.4}),
        ("a", "fox", {"reviewer": "cy", "seat": 4, "at": 10.1}),
    )
    frame = resolved(records(cases(("a", 10)), predictions(("a", "bear")), given), THREE)
    assert only(frame)["decided"] == "bear"
    assert (only(frame, "guard")["reviewer"], only(frame, "guard")["slot"]) == ("cy", slot(11))
