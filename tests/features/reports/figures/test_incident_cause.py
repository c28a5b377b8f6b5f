"""The cause of an incident: its start, its populations, its values, and batches for reviewers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng

from rollout.features.reports.figures.incident_cause import (
    BATCH_SIZE,
    JudgedUnits,
    find_incident_cause,
    find_rise,
    list_batch_ends,
)
from rollout.kernel.statistics.value_search import ERROR_RATE, ValueKind

HOUR = 3_600_000_000
FORMS = ("new", "old")


def build_units(differs, codes, *, per_day=50, kinds=()):
    """Return units an hour apart, `per_day` of them a day, of forms by code."""
    number = np.arange(len(differs))
    return JudgedUnits(
        number * HOUR, number // per_day, np.asarray(differs, dtype=bool),
        (ValueKind("form", FORMS, np.asarray(codes, dtype=np.int64)), *kinds),
    )  # fmt: skip


@pytest.fixture
def story():
    """Return a change: 150 units before, then 217 new and 14 old ones, which never differ."""
    random = default_rng(3)
    codes = np.concatenate(
        [np.ones(150), np.zeros(2), random.permutation(np.repeat([0, 1], [215, 14]))]
    )
    differs = np.zeros(len(codes), dtype=bool)
    differs[[20, 70, 110]] = True
    differs[152:] = (codes[152:] == 0) & (random.random(229) < 0.5)
    differs[152:153] = True
    return build_units(differs, codes)


def test_the_cause_is_the_value_that_holds_the_differences(story):
    cause = find_incident_cause(story, 200 * HOUR)
    found = cause.standout
    assert (found.compared.kind, found.compared.value) == ("form", "new")
    assert found.compared.n == 217
    assert (found.compared.rest_count, found.compared.rest_n) == (0, 14)
    assert (found.others_before.count, found.others_before.n) == (3, 150)
    assert (found.before.n, found.during.n + found.after.n) == (0, 217)
    assert cause.before.n + cause.during.n + cause.after.n == len(story.differs)


def test_a_new_value_puts_the_start_back_to_its_first_unit(story):
    assert find_rise(story.differs[:200], story.occurred[:200]) == 152
    assert find_incident_cause(story, 200 * HOUR).started == 150 * HOUR


def test_a_value_met_on_an_earlier_day_leaves_the_start_at_the_change(story):
    codes = story.kinds[0].codes.copy()
    codes[5] = 0
    assert find_incident_cause(story, 200 * HOUR).new_values
    cause = find_incident_cause(build_units(story.differs, codes), 200 * HOUR)
    assert cause.started == 152 * HOUR
    assert (cause.standout.before.n, cause.new_values) == (3, ())


def test_the_incidents_time_parts_during_from_after(story):
    cause = find_incident_cause(story, 200 * HOUR)
    assert (cause.during.n, cause.after.n) == (50, 181)


def test_a_change_that_hits_all_alike_names_no_value():
    codes = np.tile([0, 1], 150)
    differs = np.repeat([False, True], [200, 100])
    cause = find_incident_cause(build_units(differs, codes), 260 * HOUR)
    assert cause.standout is None
    assert (cause.before.count, cause.during.count, cause.after.count) == (0, 60, 40)
    assert all(finding.visible_difference is None for finding in cause.findings)


def test_without_a_rise_all_units_are_compared():
    differs, codes = np.zeros(120, dtype=bool), np.tile([0, 1], 60)
    differs[::2] = True  # as often at the end as at the beginning
    cause = find_incident_cause(build_units(differs, codes), 100 * HOUR)
    assert (cause.started, cause.before.n) == (None, 0)
    assert cause.standout.compared.value == "new"


def test_a_new_value_is_named_while_too_few_others_are_left_to_compare():
    codes = np.repeat([1, 0, 1], [150, 27, 4])
    differs = np.zeros(181, dtype=bool)
    differs[[20, 70, *range(152, 174, 2)]] = True
    cause = find_incident_cause(build_units(differs, codes), 200 * HOUR)
    assert cause.standout is None
    (new,) = cause.new_values
    assert (new.kind, new.value, new.since.n, new.since.count) == ("form", "new", 27, 11)
    assert (new.others.count, new.others.n) == (0, 4)


def list_verdicts(cause):
    """Return kind, value and verdict of each finding."""
    return [(f.compared.kind, f.compared.value, f.verdict) for f in cause.findings]


def build_symptoms(*, others=4, sick_others=0):
    """Return 150 units before a new form and 60 with it, of which those with digit 5 differ.

    Of the `others` in the same time, `sick_others` have digit 5 and differ too.
    """
    codes = np.repeat([1, 0, 1], [150, 60, others])
    digits = np.concatenate([np.arange(150) % 2, np.arange(60) % 2, np.zeros(others)])
    digits[210 : 210 + sick_others] = 1
    differs = (digits == 1) & (np.arange(len(codes)) >= 150)
    differs[[21, 71]] = True
    return codes, np.asarray(digits, dtype=np.int64), differs


@pytest.mark.parametrize(("source", "named"), [("answer", "form"), ("attribute", "form")])
def test_a_new_value_that_nearly_all_have_goes_before_its_symptoms(source, named):
    codes, digits, differs = build_symptoms()
    digit = ValueKind("digit", ("0", "5"), digits, source=source)
    cause = find_incident_cause(build_units(differs, codes, kinds=(digit,)), 300 * HOUR)
    assert [(v.kind, v.value) for v in cause.search.standouts] == [("digit", "5")]
    assert cause.standout is None
    assert cause.new_values[0].kind == named
    assert list_verdicts(cause)[:2] == [("digit", "5", "follows"), ("form", "new", "new")]


def test_what_also_stands_out_without_the_new_value_is_no_symptom_of_it():
    codes, digits, differs = build_symptoms(others=40, sick_others=20)
    digit = ValueKind("digit", ("0", "5"), digits)
    cause = find_incident_cause(build_units(differs, codes, kinds=(digit,)), 300 * HOUR)
    assert (cause.new_values[0].kind, cause.standout.compared.kind) == ("form", "digit")


def test_a_value_that_stands_out_apart_is_named_before_a_symptom_of_the_new_value():
    codes, digits, differs = build_symptoms(others=40, sick_others=20)
    digit = ValueKind("digit", ("0", "5"), digits)
    sheet = ValueKind("sheet", ("plain", "lined"), np.where(np.arange(250) < 210, digits, 0))
    cause = find_incident_cause(build_units(differs, codes, kinds=(sheet, digit)), 300 * HOUR)
    assert cause.standout.compared.kind == "digit"
    assert list_verdicts(cause)[:2] == [
        ("digit", "5", "stands-out"), ("sheet", "lined", "follows")
    ]  # fmt: skip


def test_an_answer_alone_is_no_cause_and_the_last_of_those_that_stand_out(story):
    answers = np.where(story.differs, 1, 0)
    answer = ValueKind("human answer", ("0", "5"), answers, source="answer")
    units = build_units(story.differs, story.kinds[0].codes, kinds=(answer,))
    cause = find_incident_cause(units, 200 * HOUR)
    assert [v.kind for v in cause.search.standouts] == ["form", "human answer"]
    assert cause.search.standouts[1].chance < cause.search.standouts[0].chance
    assert cause.standout.compared.kind == "form"
    plain = build_units(story.differs, np.zeros(len(answers)), kinds=(answer,))
    alone = find_incident_cause(plain, 200 * HOUR)
    assert [v.kind for v in alone.search.standouts] == ["human answer"]
    assert (alone.standout, alone.new_values) == (None, ())


def test_when_and_by_whom_cases_were_decided_is_never_new(story):
    weekday = ValueKind(
        "weekday", ("Monday",), np.where(np.arange(381) < 150, -1, 0), source="weekday"
    )
    units = build_units(story.differs, story.kinds[0].codes, kinds=(weekday,))
    assert [new.kind for new in find_incident_cause(units, 200 * HOUR).new_values] == ["form"]


def test_no_unit_has_no_cause():
    cause = find_incident_cause(build_units([], []), HOUR)
    assert (cause.started, cause.standout, cause.during.rate) == (None, None, None)


@given(st.lists(st.integers(0, 30), max_size=200))
def test_figures_move_by_whole_batches(new_slots):
    """Units are decided one by one; what is read grows by nothing or by a whole batch."""
    slots = np.sort(np.array(new_slots, dtype=np.int64))
    shown = 0
    for end in range(31):
        decided = slots[slots <= end]
        now = int((decided <= max(list_batch_ends(decided), default=-1)).sum())
        assert now == shown or now - shown >= BATCH_SIZE
        shown = now


@pytest.mark.simulation
@pytest.mark.parametrize(("before", "after"), [(0.03, 0.03), (0.03, 0.4)])
def test_a_fault_without_a_cause_names_a_value_in_at_most_one_of_twenty(before, after):
    """The start is chosen by the answers, one value is new on that day, and values go together."""
    runs, random, named = 1_000, default_rng(76), 0
    for _ in range(runs):
        rates = np.repeat([before, after], [200, 150])
        hidden = random.integers(0, 3, 350)
        kinds = [
            ValueKind(f"k{k}", tuple("abc"), np.where(random.random(350) < 0.8, hidden, k % 3))
            for k in range(8)
        ]
        codes = np.where((np.arange(350) >= 195) & (random.random(350) < 0.9), 0, 1)
        units = build_units(random.random(350) < rates, codes, kinds=tuple(kinds))
        named += find_incident_cause(units, 300 * HOUR, limit=1).standout is not None
    assert named <= ERROR_RATE * runs + 3 * (runs * ERROR_RATE * (1 - ERROR_RATE)) ** 0.5
