"""Values that stand out: exact chances, a family's error, and a difference that would be seen."""

from itertools import pairwise
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng

from rollout.kernel.statistics.value_search import (
    ERROR_RATE,
    MAX_VALUES,
    MAX_VALUES_OF_A_KIND,
    MIN_CASES,
    ValueKind,
    adjust_holm,
    compute_upper_chance,
    find_visible_difference,
    search_values,
)

FORM = ValueKind("form", ("old", "new"), np.repeat([0, 1], [14, 217]))
NEW_DIFFERS = np.repeat([False, True, False], [14, 101, 116])


def enumerate_chance(count, size, total, n):
    """Return the same chance with whole numbers."""
    ways = sum(
        comb(size, k) * comb(n - size, total - k) for k in range(count, min(size, total) + 1)
    )
    return ways / comb(n, total)


@st.composite
def tables(draw):
    n = draw(st.integers(2, 400))
    size, total = draw(st.integers(1, n - 1)), draw(st.integers(0, n))
    return draw(st.integers(max(0, size + total - n), min(size, total))), size, total, n


@given(tables())
def test_the_chance_of_a_table_is_fishers(table):
    count, size, total, n = table
    exact = enumerate_chance(*table)
    if count * n > size * total:
        assert compute_upper_chance(*table) == pytest.approx(exact, rel=1e-9)
    else:
        assert compute_upper_chance(*table) == 1.0


def test_a_value_that_holds_all_differences_stands_out_although_few_others_are_left():
    (value,) = [v for v in search_values(NEW_DIFFERS, [FORM]).standouts if v.value == "new"]
    assert (value.count, value.n, value.rest_count, value.rest_n) == (101, 217, 0, 14)
    assert value.chance == pytest.approx(2 * enumerate_chance(101, 217, 101, 231))
    assert value.excess == 101


def test_intervals_are_widened_for_the_number_of_values():
    alone = search_values(NEW_DIFFERS, [FORM]).values[0]
    codes = np.arange(231) % 20
    among = search_values(NEW_DIFFERS, [FORM, ValueKind("hour", tuple(map(str, range(20))), codes)])
    value = next(value for value in among.values if value.value == "new")
    assert value.low < alone.low < alone.high < value.high


def test_what_explains_most_comes_first_not_what_is_least_likely():
    label = ValueKind("label", ("0", "1"), np.where(np.arange(231) % 10 == 9, 0, 1))
    differs = NEW_DIFFERS | (label.codes == 0)
    differs[:14] = False
    search = search_values(differs, [label, FORM])
    first, second = search.standouts[:2]
    assert (first.value, second.value) == ("new", "0")
    assert first.chance > second.chance


def test_rare_values_and_those_of_all_cases_are_not_compared():
    few = np.repeat([0, 1], [MIN_CASES - 1, 231 - MIN_CASES + 1])
    alike = ValueKind("scanner", ("clean",), np.zeros(231, dtype=np.int64))
    search = search_values(NEW_DIFFERS, [ValueKind("office", ("few", "many"), few), alike])
    assert [value.value for value in search.values] == ["many"]
    assert search.uncompared == (("attribute", "scanner"),)


def test_of_many_values_the_most_frequent_are_compared_and_the_rest_counted():
    sizes = np.arange(MIN_CASES, MIN_CASES + MAX_VALUES_OF_A_KIND + 5)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    names = tuple(f"v{number}" for number in range(len(sizes)))
    kinds = [ValueKind(f"k{number}", names, codes) for number in range(MAX_VALUES // 100 + 1)]
    search = search_values(np.zeros(len(codes), dtype=bool), kinds)
    assert len(search.values) == MAX_VALUES
    assert "v0" not in {value.value for value in search.values}
    assert sum(left for _, left in search.omitted) == len(sizes) * len(kinds) - MAX_VALUES


def test_no_case_gives_no_value():
    empty = ValueKind("form", ("new",), np.zeros(0, dtype=np.int64))
    search = search_values(np.zeros(0, dtype=bool), [empty])
    assert (search.values, search.omitted, search.uncompared) == ((), (), (("attribute", "form"),))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_keeps_the_order_and_lies_between_the_chance_and_bonferronis(chances):
    adjusted = adjust_holm(chances)
    for chance, value in zip(chances, adjusted, strict=True):
        assert chance <= value <= min(1.0, chance * len(chances)) + 1e-12
    ordered = [value for _, value in sorted(zip(chances, adjusted, strict=True))]
    assert all(low <= high for low, high in pairwise(ordered))


@given(st.integers(0, 2**32), st.integers(30, 300))
def test_neither_the_order_of_cases_nor_of_values_changes_a_result(seed, n):
    random = default_rng(seed)
    differs, codes = random.random(n) < 0.3, random.integers(0, 4, n)
    order = random.permutation(n)
    search = search_values(differs, [ValueKind("a", tuple("wxyz"), codes)])
    shuffled = search_values(differs[order], [ValueKind("a", tuple("zyxw"), 3 - codes[order])])
    assert search.values == shuffled.values


@pytest.mark.simulation
@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_a_value_stands_out_without_cause_in_at_most_one_of_twenty_searches(rate):
    runs, n, random = 1_000, 400, default_rng(19)
    found = sum(
        bool(search_values(random.random(n) < rate, correlated_kinds(random, n)).standouts)
        for _ in range(runs)
    )
    assert found <= ERROR_RATE * runs + 3 * (runs * ERROR_RATE * (1 - ERROR_RATE)) ** 0.5


def correlated_kinds(random, n):
    """Return ten properties of cases that mostly repeat one hidden property."""
    hidden = random.integers(0, 4, n)
    names = tuple("abcd")
    return [
        ValueKind(
            f"k{k}", names, np.where(random.random(n) < 0.7, hidden, random.integers(0, 4, n))
        )
        for k in range(10)
    ]


@pytest.mark.simulation
def test_the_named_difference_is_found_in_eight_of_ten_cases():
    random, runs, number = default_rng(20), 2_000, 30
    codes = np.repeat([0, 1], [57, 174])
    value = search_values(np.repeat([True, False], [73, 158]), [ValueKind("a", ("x", "y"), codes)])
    compared = next(v for v in value.values if v.n == 57)
    compared = type(compared)(*("attribute", "a", "x", 18, 57, 55, 174), 1.0, 0.0, 1.0)
    difference = find_visible_difference(compared, number)
    assert difference is not None
    base = 55.5 / 175
    found = 0
    for _ in range(runs):
        own, rest = random.binomial(57, base + difference), random.binomial(174, base)
        chance = compute_upper_chance(int(own), 57, int(own + rest), 231)
        found += chance <= ERROR_RATE / number
    assert 0.77 <= found / runs <= 0.85


def test_ten_cases_of_a_thousand_values_show_no_difference_to_a_high_share():
    compared = search_values(NEW_DIFFERS, [FORM]).values[0]
    few = type(compared)(*("attribute", "a", "x", 6, 10, 120, 200), 1.0, 0.0, 1.0)
    assert find_visible_difference(few, 1_000) is None
    assert find_visible_difference(compared, 2) is not None
