"""Divergences from what was counted: the list that records give, for the work of a page."""

from datetime import timedelta
from random import Random

import polars as pl
import pytest
from msgspec.structs import replace

from rollout.data.counting.purge import list_old_cases, purge_records
from rollout.data.records.history import StoredHistory
from rollout.engine.decide.commands import Actor, AddVersion
from rollout.engine.decide.permissions import AssignedRole, Permission
from rollout.engine.evidence.frames import ATTRIBUTE_PREFIX
from rollout.engine.records.records import Case, Prediction
from rollout.engine.records.reviews import CleaningChoiceRequest
from rollout.features.access import users
from rollout.features.divergences import divergence_list as listing
from rollout.features.divergences.divergence_list import (
    DivergenceQuery,
    export_divergences_csv,
    load_divergence_page,
)
from rollout.features.reports.figures.comparison import build_action_matrix, build_matrix
from rollout.features.reports.inputs.divergences import build_divergence_frame, format_csv
from rollout.features.reports.inputs.pairs import Pairs, build_pairs
from rollout.features.reports.stored_inputs import NothingToReportError
from rollout.features.reviews.requested_reviews import seed_gold_case
from rollout.features.training.cleaning import TrainingOptions, load_closed_inputs, store_choices
from rollout.kernel.units import FAILED, WHOLE_UNIT
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command, load_rollout_state
from tests.api.bears import POLICY, founded
from tests.console.divergences.divergence_rows import count
from tests.console.told_cases import AT, judged, tell, verdict
from tests.data.snapshots import filled_once
from tests.factories import NOON
from tests.live.test_live_edits import approve

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TOWN = (
    POLICY.replace("[bear, none]", "[bear, elk, none]")
    .replace(
        "{bear: siren, none: nothing}",
        "{bear: siren, elk: nothing, none: nothing}\n"
        "    costs: [{did: nothing, right: siren, cost: 20}, {cost: 1}]",
    )
    .replace("evidence: {unit: case, ", "slices: [camera, fog]\nevidence: {unit: case, grace: 6h, ")
)
END = NOON + 4 * DAY
CASES = 400


@pytest.fixture
def town(database, monkeypatch):
    monkeypatch.setattr("tests.api.bears.POLICY", TOWN)
    settle(database)
    return database


@filled_once
def settle(database):
    founded(database, NOON, "v1", "v2")
    users.create_first_admin(database, "ada", at=NOON)
    ada = users.load_local_caller(database, "ada")
    users.create_account(database, ada, "vic", at=NOON, role_assignments=(AssignedRole("viewer"),))
    users.create_account(
        database,
        ada,
        "cleo",
        at=NOON,
        role_assignments=(AssignedRole("operator", "bears", "creek"),),
    )
    users.create_account(
        database,
        ada,
        "ana",
        at=NOON,
        role_assignments=(AssignedRole("operator"), AssignedRole("viewer")),
    )


@pytest.fixture
def busy(town):
    """Bring hundreds of cases, some of them not judged, not answered, or still open at the end."""
    bring_cases(town)
    return town


@filled_once
def bring_cases(town):
    chance = Random(7)  # noqa: S311 - it makes a town
    tell(town, *(one for n in range(CASES) for one in said(n, chance)), at=AT)
    count(town, at=END)
    for n, choice in ((3, "drop"), (4, "keep")):
        key = listed(town, asked()).rows[n].divergence.case_key
        store_choices(
            town, who(town, "ana"), "bears", [CleaningChoiceRequest(key=key, choice=choice)], END
        )


def said(n, chance):
    """Return a case with what two versions say of it, and often what a person says."""
    key, at = f"c{n:03}", NOON + n * (END - NOON) / CASES
    attributes = {"camera": f"c{n % 3}", "fog": chance.choice("yn")}
    site = chance.choice(["creek", "lake"])
    yield Case(key=key, site=site, occurred_at=at, window="day", attributes=attributes)
    right = chance.choice(["bear", "none", "none", "elk"])
    for version in ("v1", "v2"):
        answer = chance.choice([right, right, right, "bear", "elk", "none", None])
        sure = chance.choice([None, 0.0, 0.5, round(chance.random(), 2)])
        answers = {"alarm": answer}
        yield Prediction(key=key, version=version, answers=answers, at=at, confidence=sure)
    if chance.random() < 0.9:
        yield verdict(key, right, at=at + HOUR)


def who(database, name):
    return users.load_local_caller(database, name)


def asked(**more):
    return DivergenceQuery(**{"version": "v1", "since": NOON - HOUR} | more)


def listed(database, wanted, name="vic", **more):
    return load_divergence_page(database, who(database, name), "bears", wanted, END, **more)


def keys(found):
    return [row.divergence.case_key for row in found.rows]


def formerly(database, wanted, name):
    """Return what was compared and what differs, read from the records of every case."""
    caller = who(database, name)
    with database.begin_read() as transaction:
        stood = load_rollout_state(transaction, "bears")
        inputs, _ = load_closed_inputs(
            transaction, stood, TrainingOptions(since=wanted.since, until=wanted.until), END
        )
    pairs = build_pairs(inputs.records, inputs.cases, inputs.policy).select(wanted.version, "alarm")
    mine = [
        site
        for site in pairs["site"].unique()
        if caller.has_permission(Permission.READ, "bears", site)
    ]
    pairs = pairs.filter(pl.col("site").is_in(mine), pl.col("lever") != WHOLE_UNIT)
    for column in ("site", "window"):
        if (value := getattr(wanted, column)) is not None:
            pairs = pairs.filter(pl.col(column) == value)
    for attribute, value in wanted.attributes.items():
        pairs = pairs.filter(pl.col(ATTRIBUTE_PREFIX + attribute) == value)
    differ = build_divergence_frame(Pairs(pairs, {}), inputs.records, inputs.policy)
    for column in ("human", "model"):
        if (value := getattr(wanted, column)) is not None:
            differ = differ.filter(pl.col(column) == value)
    differ = differ.filter(pl.col("cost") >= (wanted.min_cost or 0.0))
    held = pl.col("case_key").is_in([choice.key for choice in inputs.choices])
    if wanted.has_choice is not None:
        differ = differ.filter(held if wanted.has_choice else ~held)
    return pairs, differ, inputs.policy.levers_by_id["alarm"]


FILTERS = {
    "none": {},
    "another version": {"version": "v2"},
    "a version that was never seen": {"version": "v9"},
    "a site": {"site": "lake"},
    "a site that there is not": {"site": "moon"},
    "a window": {"window": "night"},
    "a site in a window": {"site": "creek", "window": "day"},
    "what people said": {"human": "bear"},
    "what the version said": {"model": "elk"},
    "a version that failed": {"model": FAILED},
    "both answers": {"human": "none", "model": "bear"},
    "a cost": {"min_cost": 20.0},
    "an attribute": {"attributes": {"camera": "c1"}},
    "two attributes": {"attributes": {"camera": "c1", "fog": "y"}},
    "a first day": {"since": NOON + DAY},
    "a last day": {"until": NOON + 2 * DAY},
    "a span that no slot begins with": {
        "since": NOON + timedelta(hours=7, seconds=37, microseconds=3),
        "until": NOON + timedelta(hours=31, minutes=3, microseconds=1),
    },
    "what was judged": {"has_choice": True},
    "what was not judged": {"has_choice": False},
    "much of it": {
        "site": "lake",
        "attributes": {"fog": "n"},
        "human": "none",
        "since": NOON + DAY,
    },
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["vic", "cleo"])
def test_the_list_is_what_records_give_whatever_is_asked_for(busy, name):
    for filtered, more in FILTERS.items():
        wanted = asked(**more)
        pairs, differ, lever = formerly(busy, wanted, name)
        found = listed(busy, wanted, name, limit=CASES)
        assert keys(found) == differ["case_key"].to_list(), filtered
        assert (found.compared, found.count) == (pairs.height, differ.height), filtered
        assert found.cost == pytest.approx(differ["cost"].sum()), filtered
        acts = differ.filter(pl.col("human_action") != pl.col("model_action"))
        assert found.action_count == acts.height, filtered
        none = pairs.is_empty()
        labels = None if none else build_matrix(pairs, lever.labels)
        assert found.label_matrix == labels, filtered
        acted = pairs.group_by("human_action", "model_action").len()
        actions = None if none else build_action_matrix(acted, lever)
        assert found.action_matrix == actions, filtered
        table = export_divergences_csv(busy, who(busy, name), "bears", wanted, END)
        assert not found.is_truncated
        assert table.splitlines() == format_csv(differ).splitlines() or not found.count, filtered
    assert listed(busy, asked(), name).count > 50  # there was something to be wrong about


@pytest.mark.slow
def test_each_filter_that_is_offered_leaves_something(busy):
    found = listed(busy, asked()).filter_options
    assert (found.sites, found.windows) == (("creek", "lake"), ("day", "night"))
    assert (found.human_answers, found.model_answers) == (
        ("bear", "elk", "none"),
        ("bear", "elk", "none", FAILED),
    )
    assert found.costs == (20.0, 1.0)
    assert found.slices == {"camera": ("c0", "c1", "c2"), "fog": ("n", "y")}
    assert listed(busy, asked(), "cleo").filter_options.sites == ("creek",)
    assert listed(busy, asked(attributes={"fog": "y"})).filter_options.slices == found.slices


@pytest.mark.slow
def test_pages_follow_each_other_and_a_name_that_left_begins_anew(busy):
    whole, seen, after = keys(listed(busy, asked(), limit=CASES)), [], None
    while seen == [] or after:
        page = listed(busy, asked(), limit=7, after=after)
        assert page.first_position == len(seen) + 1
        seen, after = seen + keys(page), page.next_id
    assert seen == whole
    assert keys(listed(busy, asked(), limit=7, after="gone")) == whole[:7]


def test_records_are_read_of_the_rows_that_are_shown_and_of_no_other_case(busy, monkeypatch):
    read = []

    def records(self, case_ids=None):
        read.append(len(case_ids))
        return whole(self, case_ids)

    whole = StoredHistory.load_records
    monkeypatch.setattr(StoredHistory, "load_records", records)
    assert listed(busy, asked(), limit=5).count > 50
    assert read == [5]


def test_a_version_that_only_a_question_has_named_is_not_listed_first(busy):
    execute_command(busy, "bears", lambda _: AddVersion(at=END, version="v99"))
    assert listed(busy, asked(version=None)).version == "v2"


def test_no_more_than_the_newest_are_looked_at_and_the_list_says_how_far_back(busy, monkeypatch):
    monkeypatch.setattr(listing, "MAX_COMPARED_UNITS", 40)
    found = listed(busy, asked(), limit=CASES)
    assert found.is_truncated
    assert END - DAY < found.since < END
    late = listed(busy, asked(since=found.since), limit=CASES)
    assert set(keys(found)) == set(keys(late)) != set()
    early = listed(busy, asked(until=NOON + 6 * HOUR), limit=CASES)
    assert not early.is_truncated
    assert early.count > 0
    monkeypatch.undo()
    assert keys(early) == keys(listed(busy, asked(until=NOON + 6 * HOUR), limit=CASES))


def test_of_a_place_with_few_cases_others_are_passed_over_though_not_for_ever(busy, monkeypatch):
    monkeypatch.setattr(listing, "MAX_COMPARED_UNITS", 40)
    whole = listed(busy, asked(site="lake"), limit=CASES)
    assert whole.is_truncated
    assert 30 <= whole.compared <= 40
    monkeypatch.setattr("rollout.data.counting.closed_units.MAX_PASSES", 1)
    found = listed(busy, asked(site="lake"), limit=CASES)
    assert 5 <= found.compared <= 30
    assert found.since > whole.since
    nothing = listed(busy, asked(attributes={"camera": "c9"}, site="lake"))
    assert (nothing.compared, nothing.is_truncated) == (0, True)


def test_a_case_that_opens_again_is_left_out_of_rows_and_figures(town):
    for key in ("a", "b", "c"):
        judged(town, key, "bear", "none")
    judged(town, "open", "bear", "none", at=END - HOUR)
    count(town, at=END)
    assert (set(keys(listed(town, asked()))), listed(town, asked()).compared) == ({*"abc"}, 3)
    with town.begin_read() as transaction:
        stood = load_rollout_state(transaction, "bears")
    seed_gold_case(town, who(town, "ada"), stood, "a", {"alarm": "bear"}, reviewer_count=1, at=END)
    assert (set(keys(listed(town, asked()))), listed(town, asked()).compared) == ({*"bc"}, 2)


def test_a_longer_grace_opens_cases_by_when_they_occurred_and_were_sent(town):
    judged(town, "long-ago", "bear", "none")
    ahead = Case(key="ahead", site="creek", occurred_at=END - 8 * HOUR, window="day")
    tell(town, ahead, *told("ahead"), at=AT)  # by a clock that was ahead
    tell(town, replace(ahead, key="late", occurred_at=AT), *told("late"), at=END - 8 * HOUR)
    count(town, at=END)
    assert set(keys(listed(town, asked()))) == {"long-ago", "ahead", "late"}
    apply_policy(town, TOWN.replace("grace: 6h", "grace: 12h"), Actor("zoe"), END)
    approve(town, END, "bears")
    count(town, at=END + HOUR)  # whose tick applies it
    assert (keys(listed(town, asked())), listed(town, asked()).compared) == (["long-ago"], 1)


def told(key):
    """Return what v1 and a person say of a case, who differ."""
    answers = {"alarm": "bear"}
    yield Prediction(key=key, version="v1", answers=answers, at=AT, confidence=0.9)
    yield verdict(key, "none")


def test_what_was_purged_is_gone_from_rows_and_figures(town):
    judged(town, "old", "bear", "none")
    judged(town, "new", "bear", "none", at=AT + DAY)
    count(town, at=END)
    with town.begin_write() as transaction:
        rollout = load_rollout_state(transaction, "bears").rollout
        old = list_old_cases(transaction, rollout, before=AT + HOUR, limit=9)
        purge_records(transaction, rollout, before=AT + HOUR, case_ids=old, revision=1)
    assert (keys(listed(town, asked())), listed(town, asked()).compared) == (["new"], 1)


def test_a_case_that_moves_after_its_decision_counts_where_it_was_and_is_hidden_there(town):
    judged(town, "moved", "bear", "none")
    judged(town, "stays", "bear", "none")
    count(town, at=END)
    tell(town, Case(key="moved", site="lake", occurred_at=AT, window="day", revision=2), at=END)
    assert keys(listed(town, asked())) == ["stays"]  # open till then: it was sent just now
    found = load_divergence_page(town, who(town, "cleo"), "bears", asked(), END + DAY)
    assert (keys(found), found.compared) == (["stays"], 1)
    whole = load_divergence_page(town, who(town, "vic"), "bears", asked(), END + DAY)
    sites = {row.divergence.case_key: row.divergence.site for row in whole.rows}
    assert sites == {"moved": "creek", "stays": "creek"}


def test_a_span_begins_with_its_first_instant_and_ends_before_its_last(town):
    instant = AT + timedelta(seconds=37)  # no slot begins then
    judged(town, "then", "bear", "none", at=instant)
    count(town, at=END)
    assert keys(listed(town, asked(since=instant))) == ["then"]
    assert keys(listed(town, asked(since=instant + timedelta(seconds=1)))) == []
    assert keys(listed(town, asked(until=instant))) == []
    assert keys(listed(town, asked(until=instant + timedelta(seconds=1)))) == ["then"]


def test_a_case_stands_under_the_time_that_was_corrected(town):
    judged(town, "yesterday", "bear", "none", at=AT + DAY)
    judged(town, "today", "bear", "none", at=AT + 2 * DAY)
    count(town, at=END)
    moved = Case(key="today", site="creek", occurred_at=AT, window="day", revision=2)
    tell(town, moved, at=AT + 2 * DAY)
    assert keys(listed(town, asked(since=AT + DAY))) == ["yesterday"]


@pytest.mark.slow
def test_answers_that_no_lever_has_stand_in_rows_as_they_were_given(town):
    judged(town, "strange", "wolf", "none")
    judged(town, "seen", "bear", "moose")
    count(town, at=END)
    found = {row.divergence.case_key: row.divergence for row in listed(town, asked()).rows}
    assert (found["strange"].human, found["strange"].model) == ("none", "wolf")
    assert (found["seen"].human, found["seen"].model) == ("moose", "bear")
    assert {one.cost for one in found.values()} == {20.0}
    assert keys(listed(town, asked(model="wolf"))) == ["strange"]
    assert listed(town, asked()).filter_options.human_answers == ("none", "moose")


def test_how_sure_a_version_was_is_by_the_prediction_that_counts(town):
    judged(town, "first", "bear", "none", sure=0.8)
    judged(town, "second", "bear", "none", sure=0.7)
    count(town, at=END)
    answers = {"alarm": "bear"}
    again = Prediction(key="second", version="v1", answers=answers, at=AT, confidence=0.9)
    tell(town, replace(again, revision=2), at=END)  # it came too late
    found = listed(town, asked())
    assert keys(found) == ["first", "second"]
    assert [row.divergence.confidence for row in found.rows] == [0.8, 0.7]


def test_a_span_that_is_none_is_refused(town):
    for more, says in (
        ({"since": END}, "is not before"),
        ({"since": NOON - 2 * DAY, "until": NOON - DAY}, "let the span end after it"),
    ):
        with pytest.raises(NothingToReportError, match=says):
            listed(town, asked(**more))
