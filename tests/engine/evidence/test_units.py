"""One test for each rule of counting: what a unit is, when it closes, how it counts."""

from dataclasses import replace
from datetime import timedelta

import narwhals as nw
import polars as pl
import pytest

from rollout.engine.evidence import units
from rollout.engine.evidence.case_placement import place_cases
from rollout.engine.evidence.units import UNLISTED
from rollout.kernel.calendar.instants import Site, Window, find_slot_after, find_slot_before
from rollout.kernel.policy.evidence_sources import EvidenceSources, VouchedSender
from rollout.kernel.statistics.sampling import compute_sampling_value
from rollout.kernel.units import (
    AFTER_DECISION,
    FAILED,
    LATE,
    LATE_CASE,
    MISSING,
    NOT_PREDICTED,
    OUTSIDE,
    CostRule,
)
from tests.engine.evidence.histories import (
    ALARM,
    HOUR,
    SALT,
    a_policy,
    cases,
    decisions,
    evidence,
    hour,
    only,
    outcomes,
    predictions,
    records,
    resolve_case,
    resolved,
    track,
)

POLICY = a_policy()
BY_EPISODE = evidence(POLICY, unit="episode")
THREE = evidence(POLICY, verdicts=3)


def slot(number, policy=POLICY):
    return find_slot_after(hour(number), policy.tick)


def pick(key):
    return compute_sampling_value(SALT, "pick", key)


def burst(count, *, at=10, apart=0.01, **more):
    """Cases of one episode, the first of them with the lowest pick."""
    keys = sorted((f"c{i}" for i in range(count)), key=pick)
    return [(key, at + place * apart, {"episode": "e", **more}) for place, key in enumerate(keys)]


# When and where


def test_a_unit_closes_once_when_its_grace_has_passed():
    rows = track(resolve_case(decision={"at": 10.5}))
    assert [(row["slot"], row["occurred"]) for row in rows] == [(slot(12), slot(10))]


def test_grace_runs_from_the_case_whenever_it_is_received():
    assert only(resolve_case(case={"received": 10.5}, decision={"at": 11}))["slot"] == slot(12)


def test_a_unit_between_two_slots_is_counted_in_the_later_and_occurs_in_the_earlier():
    history = records(cases(("a", 10.4)), predictions(("a", "bear")), decisions(("a", "bear")))
    row = only(resolved(history, POLICY))
    assert row["slot"] == slot(13)
    assert row["occurred"] == find_slot_before(hour(10.4), POLICY.tick)


def test_a_unit_is_counted_after_the_slot_it_occurred_in_even_without_any_delay():
    at_once = evidence(POLICY, grace=timedelta())
    for row in resolve_case(policy=at_once).to_dicts():
        assert row["occurred"] == slot(10)
        assert row["slot"] == slot(11)


def test_the_guard_track_counts_when_the_first_verdict_is_in():
    assert only(resolve_case(decision={"at": 10.5}), "guard")["slot"] == slot(11)
    assert only(resolve_case(decision={"at": 40}), "guard")["slot"] == slot(40)


def test_a_decision_waits_for_no_prediction():
    frame = resolve_case(prediction={"at": 10.7}, decision={"at": 10.5})
    assert [(r["track"], r["slot"], r["predicted"], r["excluded"]) for r in frame.to_dicts()] == [
        ("gate", slot(12), AFTER_DECISION, None),
        ("guard", slot(10.5), NOT_PREDICTED, None),
    ]


# Cases that come late


def test_a_case_that_comes_after_its_slot_is_missing_when_its_decision_is_as_old_as_its_grace():
    for received, counted in ((12.1, 13), (14, 14)):
        row = only(resolve_case(case={"received": received}, decision={"at": 11}))
        assert (row["slot"], row["predicted"]) == (slot(counted), LATE_CASE)
        assert (row["decided"], row["cost"]) == ("bear", POLICY.largest_cost)


def test_a_late_case_waits_for_the_grace_of_the_decision_before_it():
    for decided, counted in ((11.5, 14), (11, 13), (12.2, 13)):
        row = only(resolve_case(case={"received": 12.1}, decision={"at": decided}))
        assert (row["slot"], row["predicted"]) == (slot(counted), LATE_CASE)


def test_a_late_case_without_a_decision_is_missing_when_it_comes():
    history = records(cases(("a", 10, {"received": 30})), predictions(("a", "bear")))
    row = only(resolved(history, POLICY))
    assert (row["slot"], row["predicted"], row["decided"]) == (slot(30), LATE_CASE, MISSING)


def test_a_late_case_has_the_decisions_of_its_slot_in_whichever_order_they_come():
    for received, decided in ((13.5, "bear"), (14, "bear"), (14.1, MISSING)):
        row = only(resolve_case(case={"received": 13.2}, decision={"at": 11, "received": received}))
        assert (row["slot"], row["predicted"], row["decided"]) == (slot(14), LATE_CASE, decided)


def test_guards_count_a_late_case_with_its_decision():
    row = only(resolve_case(case={"received": 30}, decision={"at": 31}), "guard")
    assert (row["slot"], row["predicted"]) == (slot(31), "bear")


def test_a_decision_that_is_received_after_the_slot_is_missing_whenever_it_was_made():
    row = only(resolve_case(decision={"at": 11, "received": 12.1}))
    assert (row["slot"], row["decided"]) == (slot(12), MISSING)
    assert only(resolve_case(decision={"at": 11, "received": 12}))["decided"] == "bear"


def test_the_local_day_is_the_sites():
    far = replace(POLICY, sites=(Site("creek", "Asia/Tokyo"),))
    history = records(cases(("a", 20)), predictions(("a", "bear")))
    days = [only(resolved(history, policy))["day"] for policy in (POLICY, far)]
    assert days[1] == days[0] + 1


def test_windows_ask_for_attributes_and_a_missing_one_is_other():
    windows = (Window("dry", when={"weather": ("dry", "frost")}), Window("rest"))
    rows = [("a", 1, {"weather": "dry"}), ("b", 1, {"weather": "wet"}), ("c", 1, {})]
    history = records(
        cases(*rows, attributes=("weather",)), predictions(*((k, "fox") for k in "abc"))
    )
    frame = resolved(history, replace(POLICY, windows=windows))
    assert [row["window"] for row in track(frame)] == ["dry", "rest", "other"]


def test_a_window_whose_attribute_no_record_has_is_other():
    policy = replace(POLICY, windows=(Window("dry", when={"weather": ("dry",)}), Window("rest")))
    assert only(resolve_case(policy=policy))["window"] == "other"


def test_cases_that_can_not_be_placed_are_counted_by_reason():
    rows = [("a", None), ("b", 1, {"site": "elsewhere"}), ("c", 1), ("d", 1, {"episode": "e"})]
    history = place_cases(records(cases(*rows)), BY_EPISODE, SALT)
    assert history.excluded == {"no time": 1, "unknown site": 1, "no episode": 1}
    assert history.cases["case_key"].to_list() == ["d"]


def test_an_empty_history_has_no_units():
    for policy in (POLICY, BY_EPISODE, THREE):
        assert resolved(records(cases()), policy).height == 0


# Episodes


def test_an_episode_is_the_case_with_the_lowest_pick():
    rows = burst(6)
    said = predictions(*((key, "bear" if key == rows[0][0] else "fox") for key, *_ in rows))
    given = decisions(*((key, "fox") for key, *_ in rows))
    row = only(resolved(records(cases(*rows), said, given), BY_EPISODE))
    assert (row["case_key"], row["unit"]) == (rows[0][0], "e")
    assert (row["predicted"], row["decided"]) == ("bear", "fox")


def test_an_episode_closes_with_its_first_case():
    rows = burst(3, apart=0.5)
    history = records(cases(*reversed(rows)), predictions(*((key, "fox") for key, *_ in rows)))
    assert only(resolved(history, BY_EPISODE))["slot"] == slot(12)


def test_a_case_that_comes_after_the_episode_closed_is_not_picked():
    rows = burst(3)
    late = [(key, at, {**more, "received": 13}) for key, at, more in rows[:1]]
    history = records(cases(*late, *rows[1:]), predictions(*((key, "fox") for key, *_ in rows)))
    row = only(resolved(history, BY_EPISODE))
    assert row["case_key"] == rows[1][0]
    assert row["slot"] == slot(12)


def test_a_case_that_is_added_after_the_first_decision_is_not_picked():
    rows = burst(3)
    added = [(key, at, {**more, "received": 11}) for key, at, more in rows[:1]]
    said = predictions(*((key, "fox", {"received": 10.1}) for key, *_ in rows))
    given = decisions((rows[2][0], "fox", {"at": 10.9}), (rows[0][0], "fox", {"at": 11.2}))
    row = only(resolved(records(cases(*added, *rows[1:]), said, given), BY_EPISODE))
    assert row["case_key"] == rows[1][0]
    none_known = [(key, at, {**more, "received": 11}) for key, at, more in rows]
    row = only(resolved(records(cases(*none_known), said, given), BY_EPISODE))
    assert (row["case_key"], row["predicted"]) == (rows[0][0], AFTER_DECISION)


def test_a_case_that_comes_at_the_instant_of_the_first_decision_is_drawn_too():
    low, high = (key for key, *_ in burst(2))
    for decided, drawn in ((10.5, low), (10.4, high)):
        rows = cases((high, 10, {"episode": "e"}), (low, 10.5, {"episode": "e"}))
        said = predictions((low, "fox"), (high, "fox"))
        answer = decisions((high, "fox", {"at": decided}))
        assert only(resolved(records(rows, said, answer), BY_EPISODE))["case_key"] == drawn


def test_a_prediction_after_the_first_decision_of_its_episode_is_missing():
    rows = burst(2)
    said = predictions((rows[0][0], "fox", {"at": 11}), (rows[1][0], "fox"))
    given = decisions((rows[0][0], "fox", {"at": 11.5}), (rows[1][0], "fox", {"at": 10.5}))
    frame = resolved(records(cases(*rows), said, given), BY_EPISODE)
    assert only(frame)["predicted"] == AFTER_DECISION
    assert only(frame, "guard")["predicted"] == "fox"


def test_site_and_window_of_an_episode_are_those_of_the_picked_case():
    windows = (Window("early", "00:00-10:01"), Window("late"))
    policy = replace(BY_EPISODE, windows=windows)
    rows = burst(4, apart=-0.1, at=10.2)
    history = records(cases(*rows), predictions(*((key, "fox") for key, *_ in rows)))
    assert only(resolved(history, policy))["window"] == "late"
    back = [(key, 20.4 - at, more) for key, at, more in rows]
    history = records(cases(*back), predictions(*((key, "fox") for key, *_ in rows)))
    row = only(resolved(history, policy))
    assert row["window"] == "late"
    assert row["case_key"] == rows[0][0]


def test_no_verdict_on_the_picked_case_is_missing_even_where_others_have_one():
    rows = burst(4)
    given = decisions(*((key, "fox") for key, *_ in rows[1:]))
    history = records(cases(*rows), predictions(*((key, "fox") for key, *_ in rows)), given)
    assert only(resolved(history, BY_EPISODE))["decided"] == MISSING


def judged(rows, *verdicts, said="fox", **more):
    """Resolve a burst whose cases were judged: (place in the burst, hour of its decision)."""
    history = records(
        cases(*rows),
        predictions(*((key, said, more) for key, *_ in rows)),
        decisions(*((rows[place][0], "fox", {"at": at}) for place, at in verdicts)),
    )
    return resolved(history, BY_EPISODE)


def test_guards_count_an_episodes_first_judged_case_and_gates_the_picked_one():
    rows = burst(4)
    frame = judged(rows, (0, 11.7), (2, 11.2), (3, 11.4))
    assert only(frame)["case_key"] == rows[0][0]
    row = only(frame, "guard")
    assert (row["case_key"], row["unit"], row["slot"]) == (rows[2][0], "e", slot(11.2))


def test_what_is_judged_later_changes_nothing_that_guards_counted():
    rows = burst(4)
    early = only(judged(rows, (2, 11.2)), "guard")
    assert only(judged(rows, (2, 11.2), (0, 11.3), (1, 30)), "guard") == early
    assert only(judged(rows[1:], (1, 11.2)), "guard") == early  # the picked case came later


def test_of_what_joins_a_decided_episode_guards_count_one_case_in_each_slot():
    """Its sender names the episode, and would hide in it whatever it fears."""
    (first, *_), *others = burst(4)
    times = (11.5, 11.6, 13.5)
    joined = [(key, at, {"episode": "e"}) for (key, *_), at in zip(others, times, strict=True)]
    rows = [(first, 10, {"episode": "e"}), *joined]
    frame = judged(rows, *((place, at + 0.01) for place, (_, at, *_) in enumerate(rows)))
    found = [(row["case_key"], row["slot"]) for row in track(frame, "guard")]
    assert sorted(found, key=lambda row: row[1]) == [
        (first, slot(10.01)),
        (others[0][0], slot(11.51)),
        (others[2][0], slot(13.51)),
    ]
    assert only(frame)["case_key"] == first


def test_of_cases_judged_at_once_guards_count_the_one_with_the_lower_pick():
    rows = burst(4)
    assert only(judged(rows, (3, 11), (1, 11), (0, 11)), "guard")["case_key"] == rows[0][0]


def test_on_the_guard_track_the_case_decided_first_stands_for_its_episode_predicted_or_not():
    rows = burst(3)
    late = [(rows[0][0], "fox", {"at": 11.5}), (rows[1][0], "fox")]
    given = decisions(
        *((key, "fox", {"at": at}) for (key, *_), at in zip(rows, (11, 12), strict=False))
    )
    frame = resolved(records(cases(*rows), predictions(*late), given), BY_EPISODE)
    row = only(frame, "guard")
    assert (row["case_key"], row["predicted"]) == (rows[0][0], NOT_PREDICTED)


def test_of_an_episode_that_people_confirm_the_first_confirmed_case_counts():
    rows = burst(3)
    given = decisions(
        (rows[0][0], "fox", {"exposure": "assisted", "at": 12}),
        (rows[2][0], "bear", {"exposure": "assisted", "at": 11}),
    )
    said = predictions(*((key, "fox") for key, *_ in rows))
    row = only(resolved(records(cases(*rows), said, given), BY_EPISODE), "assisted")
    assert (row["case_key"], row["decided"]) == (rows[2][0], "bear")


def test_site_and_window_of_an_episode_on_the_guard_track_are_the_first_judged_cases():
    policy = replace(BY_EPISODE, windows=(Window("early", "00:00-10:01"), Window("late")))
    rows = burst(3, apart=0.1)
    history = records(
        cases(*rows),
        predictions(*((key, "fox") for key, *_ in rows)),
        decisions((rows[0][0], "fox", {"at": 11.5}), (rows[1][0], "fox", {"at": 11})),
    )
    frame = resolved(history, policy)
    assert (only(frame)["window"], only(frame, "guard")["window"]) == ("early", "late")


def test_cases_without_an_episode_are_one_within_the_span_of_the_clock():
    policy = evidence(BY_EPISODE, episode_span=timedelta(minutes=10))
    at = [10, 10 + 9.99 / 60, 10 + 10 / 60, 10 + 11 / 60]
    history = records(
        cases(*((f"c{i}", when) for i, when in enumerate(at)), ("own", 10, {"episode": "e"})),
        predictions(*((f"c{i}", "fox") for i in range(4)), ("own", "fox")),
    )
    assert len(track(resolved(history, policy))) == 3


def test_sites_do_not_share_a_span_of_the_clock():
    policy = evidence(BY_EPISODE, episode_span=timedelta(minutes=10))
    policy = replace(policy, sites=(Site("creek", "UTC"), Site("lake", "UTC")))
    history = records(
        cases(("a", 10), ("b", 10, {"site": "lake"})), predictions(("a", "fox"), ("b", "fox"))
    )
    assert len(track(resolved(history, policy))) == 2


# Verdicts


@pytest.mark.parametrize("verdict", [None, "missing"])
def test_unsure_or_unanswered_is_missing_for_gates_and_nothing_for_guards(verdict):
    given = decisions() if verdict else decisions(("a", None))
    history = records(cases(("a", 10)), predictions(("a", "bear")), given)
    frame = resolved(history, POLICY)
    assert only(frame)["decided"] == MISSING
    assert only(frame)["cost"] == POLICY.largest_cost
    assert track(frame, "guard") == []


def test_a_verdict_after_grace_is_missing_for_gates_and_counts_for_guards():
    frame = resolve_case(decision={"at": 12.01})
    assert only(frame)["decided"] == MISSING
    assert only(frame, "guard")["decided"] == "bear"
    assert only(frame, "guard")["slot"] == slot(13)


def test_a_verdict_at_the_end_of_grace_is_in_time():
    assert only(resolve_case(decision={"at": 12}))["decided"] == "bear"


def test_a_persons_label_outside_the_lever_is_a_disagreement_at_the_largest_cost():
    row = only(resolve_case(verdict="wolf"))
    assert (row["predicted"], row["decided"]) == ("bear", UNLISTED)
    assert row["cost"] == POLICY.largest_cost


@pytest.mark.parametrize("exposure", ["assisted", "revealed"])
def test_a_person_who_saw_the_answer_gives_no_evidence(exposure):
    frame = resolve_case(decision={"exposure": exposure})
    assert only(frame)["decided"] == MISSING
    assert track(frame, "guard") == []


def test_assisted_verdicts_stand_on_a_track_of_their_own():
    row = only(
        resolve_case(verdict="fox", decision={"exposure": "assisted", "at": 10.5}), "assisted"
    )
    assert (row["predicted"], row["decided"], row["slot"]) == ("bear", "fox", slot(11))


@pytest.mark.parametrize(("said", "decided"), [(True, "bear"), (False, MISSING)])
def test_unknown_exposure_is_evidence_only_where_the_policy_says_so(said, decided):
    policy = evidence(POLICY, outside="blind" if said else "unknown")
    assert only(resolve_case(policy=policy, decision={"exposure": "unknown"}))["decided"] == decided


# Predictions


def test_a_failed_prediction_disagrees_at_the_largest_cost():
    row = only(resolve_case(label=None))
    assert (row["predicted"], row["cost"]) == (FAILED, POLICY.largest_cost)


def test_a_label_outside_the_lever_disagrees_even_where_the_person_gives_it_too():
    row = only(resolve_case(label="wolf", verdict="wolf"))
    assert (row["predicted"], row["decided"]) == (OUTSIDE, UNLISTED)


def test_an_answer_after_the_levers_time_disagrees():
    slow = replace(POLICY, levers=(replace(ALARM, answer_within=timedelta(minutes=6)),))
    just = resolve_case(policy=slow, prediction={"at": 10.1}, decision={"at": 11})
    assert only(just)["predicted"] == "bear"
    late = only(resolve_case(policy=slow, prediction={"at": 10.11}, decision={"at": 11}))
    assert (late["predicted"], late["excluded"]) == (LATE, None)


@pytest.mark.parametrize(
    "known",
    [
        {"prediction": {"at": 10.5}},
        {"prediction": {"at": 10, "received": 10.5}},
        {"case": {"received": 10.5}},
    ],
)
def test_what_comes_after_the_decision_is_missing_and_wrong(known):
    row = only(resolve_case(decision={"at": 10.4}, **known))
    assert (row["predicted"], row["decided"]) == (AFTER_DECISION, "bear")
    assert (row["cost"], row["excluded"]) == (POLICY.largest_cost, None)
    assert only(resolve_case(decision={"at": 10.5}, **known))["predicted"] == "bear"


@pytest.mark.parametrize(
    "seen",
    [
        {"at": 10.4, "exposure": "assisted", "reviewer": "bo"},
        {"at": 30, "received": 10.4, "reviewer": "bo"},
    ],
)
def test_any_first_decision_counts_at_the_earlier_of_its_own_time_and_receipt(seen):
    given = decisions(("a", "bear", {"at": 11}), ("a", "bear", seen))
    said = predictions(("a", "bear", {"at": 10.5}))
    frame = resolved(records(cases(("a", 10)), said, given), POLICY)
    assert only(frame)["predicted"] == AFTER_DECISION


def test_a_prediction_after_an_outcome_is_missing_too():
    for at, predicted in ((10.4, AFTER_DECISION), (10.5, "bear")):
        history = records(
            cases(("a", 10)),
            predictions(("a", "bear", {"at": 10.5})),
            decisions(("a", "bear", {"at": 11})),
            outcomes(("a", "bite", at)),
        )
        assert only(resolved(history, POLICY))["predicted"] == predicted


def test_a_silent_version_is_missing_whatever_confidence_it_names_later():
    floor = evidence(POLICY, confidence_floor=0.5)
    late = {"at": 10.5, "confidence": 0.1}
    row = only(resolve_case(policy=floor, prediction=late, decision={"at": 10.4}))
    assert (row["predicted"], row["excluded"]) == (AFTER_DECISION, None)


def test_a_prediction_after_its_unit_closed_is_no_evidence_without_a_verdict_either():
    history = records(cases(("a", 10)), predictions(("a", "bear", {"at": 12.5})))
    assert only(resolved(history, POLICY))["excluded"] == "after the unit closed"


def test_a_version_is_no_evidence_on_cases_that_it_was_trained_on():
    history = records(
        cases(("a", 10), ("b", 11)),
        predictions(("a", "bear"), ("b", "bear"), ("a", "bear", {"version": "v2"})),
    )
    frame = resolved(history, POLICY, trained_until={"v1": hour(10)})
    found = {(row["case_key"], row["version"]): row["excluded"] for row in track(frame)}
    assert found == {("a", "v1"): "trained on", ("b", "v1"): None, ("a", "v2"): None}


def test_a_guard_counts_cases_on_which_a_version_says_that_it_was_trained():
    history = records(
        cases(("a", 10), ("b", 11)),
        predictions(("a", "bear"), ("b", "bear")),
        decisions(("a", "fox"), ("b", "fox")),
    )
    frame = resolved(history, POLICY, trained_until={"v1": hour(20)})
    excluded = {name: [row["excluded"] for row in track(frame, name)] for name in ("gate", "guard")}
    assert excluded == {"gate": ["trained on"] * 2, "guard": [None] * 2}


@pytest.mark.parametrize(
    ("sure", "reason"), [(0.8, None), (0.79, "below the floor"), (None, "below the floor")]
)
def test_below_the_confidence_floor_nothing_is_evidence(sure, reason):
    floor = evidence(POLICY, confidence_floor=0.8)
    assert only(resolve_case(policy=floor, prediction={"confidence": sure}))["excluded"] == reason


@pytest.mark.parametrize(
    ("sure", "band"), [(0.59, 0), (0.6, 1), (0.8, 2), (1, 2), (1.01, 0), (None, 0)]
)
def test_a_confidence_reaches_the_floors_up_to_it_and_above_1_none(sure, band):
    floors = evidence(POLICY, confidence_floors=(0.0, 0.6, 0.8))
    frame = resolve_case(policy=floors, prediction={"confidence": sure}, decision={"at": 11})
    assert {row["band"] for row in frame.to_dicts()} == {band}


def test_a_silent_version_counts_at_every_floor():
    floors = evidence(POLICY, confidence_floors=(0.0, 0.6, 0.8))
    late = {"at": 10.5, "confidence": 0.1}
    assert only(resolve_case(policy=floors, prediction=late, decision={"at": 10.4}))["band"] == 2


@pytest.mark.parametrize(
    ("case", "prediction", "within", "certain"),
    [
        ({}, {"received": 13}, 0, 11),  # with the decision
        ({"received": 11.2}, {"received": 13}, 0, 12),  # with its case
        ({}, {"received": 13}, 2, 12),  # once nobody vouches for a prediction any more
        ({}, {"received": 11.2}, 1, 11),
    ],
)
def test_a_unit_that_its_version_can_not_answer_any_more_is_certain_before_it_closes(
    case, prediction, within, certain
):
    vouched = (VouchedSender("box", within * HOUR),)
    policy = evidence(POLICY, grace=5 * HOUR, sources=EvidenceSources(vouched_senders=vouched))
    row = only(resolve_case(policy=policy, case=case, prediction=prediction, decision={"at": 10.5}))
    assert (row["predicted"], row["slot"]) == (AFTER_DECISION, slot(15))
    assert row["known"] == slot(certain)


@pytest.mark.parametrize(("received", "predicted"), [(11, "bear"), (11.5, NOT_PREDICTED)])
def test_a_guard_counts_what_a_vouched_sender_sent_by_its_slot(received, predicted):
    """The slot of the decision is over when it comes: live nothing was there to be counted."""
    history = records(
        cases(("a", 10, {"received": 10})),
        predictions(("a", "bear", {"received": received, "known": 10})),
        decisions(("a", "bear", {"at": 10.5})),
    )
    units_resolved = resolved(history, evidence(POLICY, grace=5 * HOUR))
    guarded = only(units_resolved, "guard")
    assert (guarded["slot"], guarded["predicted"]) == (slot(11), predicted)
    assert only(units_resolved)["predicted"] == "bear"


def test_each_version_has_its_own_units():
    history = records(
        cases(("a", 10)),
        predictions(("a", "bear"), ("a", "fox", {"version": "v2"})),
        decisions(("a", "bear")),
    )
    said = {row["version"]: row["predicted"] for row in track(resolved(history, POLICY))}
    assert said == {"v1": "bear", "v2": "fox"}


@pytest.mark.parametrize("decided", [{}, {"exposure": "assisted"}])
def test_a_track_costs_the_answers_of_each_lever_once(monkeypatch, decided):
    """Building expressions again, and tracks without a unit, took most of a small batch."""
    built = []
    for name in ("_build_decided", "_build_predicted", "_compute_cost"):
        monkeypatch.setattr(units, name, count_calls(getattr(units, name), built))
    levers = ("alarm", "siren")
    policy = a_policy(levers=tuple(replace(ALARM, id=name) for name in levers))
    history = records(
        cases(("a", 10)),
        predictions(("a", "bear"), levers=levers),
        decisions(("a", "bear", decided), levers=levers),
    )
    resolved(history, policy)
    track_count = 3 if decided else 2
    assert len(built) == track_count * len(levers) * 3


def test_a_cost_rule_adds_one_comparison_however_many_labels_there_are():
    """Each rule mapped all labels to actions again: most of a tick in the mail room."""
    labels = tuple("0123456789")
    lever = replace(ALARM, labels=labels, actions=(*["low"] * 5, *["high"] * 5), costs=())
    names = ("decision_value:alarm", "second_value:alarm", "value:alarm")
    frame = nw.from_native(pl.LazyFrame(schema=dict.fromkeys(names, pl.String)))
    frame = frame.with_columns(
        on_time=nw.lit(value=True), second_on_time=nw.lit(value=True),
        predicted_at=nw.lit(1), occurred_us=nw.lit(1), silent=nw.lit(None, nw.String),
    )  # fmt: skip
    rules = [CostRule(cost, did="low", right="high") for cost in (1.0, 2.0, 3.0)]
    counts = []
    for rule_count in range(4):
        policy = a_policy(levers=(replace(lever, costs=tuple(rules[:rule_count])),))
        compared = units._add_answer_columns(frame, policy)
        counts.append(compared.to_native().explain(optimized=False).count("when("))
    assert counts == [counts[0] + added for added in range(4)]


def count_calls(build, calls):
    def counted(*arguments):
        calls.append(build.__name__)
        return build(*arguments)

    return counted
