"""e-BH over a list: vectors by brute force, and the false share of lists against its bound."""

from itertools import combinations
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaln, logsumexp
from scipy.stats import beta

from benchmarks import portfolios
from rollout.core.scope.portfolio_steps import find_openings
from rollout.core.scope.scope import PortfolioPlace, Scope
from rollout.core.statistics.e_bh import compute_required_openings, count_openings


def open_by_trial(e_values, alpha, size, placed):
    """Return the size of the largest set of e-values that are all large enough for that size."""
    for k in range(len(e_values), 0, -1):
        for chosen in combinations(e_values, k):
            if all(alpha * e_value >= size / (placed + k) for e_value in chosen):
                return placed + k
    return placed


@pytest.mark.parametrize(
    ("e_values", "size", "placed", "opened"),
    [
        ([], 4, 0, 0),
        ([80.1], 4, 0, 1),
        ([79.9], 4, 0, 0),
        ([40.1, 40.1], 4, 0, 2),
        ([39.0, 500.0], 4, 0, 1),
        ([26.7, 26.7, 26.7], 4, 0, 3),
        ([26.6, 26.7, 26.7], 4, 0, 0),  # three are too few by one, and none suffices for two
        ([20.1], 4, 3, 4),  # beside three with a place
        ([19.9], 4, 3, 3),
        ([1.0] * 4, 4, 0, 0),  # without data E is 1
        ([0.2, 4001.0, 1999.0, 900.0], 200, 0, 1),
        ([0.2, 4001.0, 1999.0, 1334.0], 200, 0, 3),
    ],
)
def test_the_largest_open_that_are_large_enough_together(e_values, size, placed, opened):
    scores = [log(0.05 * e_value) for e_value in e_values]
    assert count_openings(scores, size, placed) == opened
    assert open_by_trial(e_values, 0.05, size, placed) == opened


scores_of_a_list = st.lists(st.floats(-3, 6).map(lambda score: round(score, 3)), max_size=7)


@given(scores=scores_of_a_list, placed=st.integers(0, 5), more=st.integers(0, 20))
def test_openings_are_those_of_brute_force(scores, placed, more):
    size = len(scores) + placed + more
    opened = count_openings(scores, size, placed)
    assert opened == open_by_trial(
        [np.exp(s) / 0.05 * (1 + 1e-12) for s in scores], 0.05, size, placed
    )


@given(score=st.floats(0, 9).map(lambda value: round(value, 6)), size=st.integers(1, 10_000))
def test_required_openings_are_the_least_that_suffice(score, size):
    required = compute_required_openings(score, size)
    assert score >= log(size / required)
    assert required == 1 or score < log(size / (required - 1))


# The false share, with e-values and openings computed in another way than the engine does.


def compute_log_e(agreed, disagreed, threshold):
    """Return ln E by its definition: the mean likelihood ratio over Beta(½, ½) above the threshold.

    Closed form of the beta integral with SciPy's tail, where the engine uses pieces of its own.
    """
    tail = beta.logsf(threshold, 0.5 + agreed, 0.5 + disagreed) - beta.logsf(threshold, 0.5, 0.5)
    shape = betaln(0.5 + agreed, 0.5 + disagreed) - betaln(0.5, 0.5)
    return shape + tail - agreed * log(threshold) - disagreed * log(1 - threshold)


def open_lists(log_e, alpha):
    """Return which cells of each run are ever opened; shape of `log_e` is (runs, cells, looks)."""
    runs, size, looks = log_e.shape
    opened = np.zeros((runs, size), bool)
    for look in range(looks):
        scores = np.where(opened, np.inf, log_e[:, :, look])  # a place is kept
        ordered = -np.sort(-scores, axis=1)
        ranks = np.arange(1, size + 1)
        is_enough = ordered >= np.log(size / (alpha * ranks))
        counts = np.where(is_enough, ranks, 0).max(axis=1)
        limits = np.log(size / (alpha * np.maximum(counts, 1)))
        opened |= (scores >= limits[:, None]) & (counts > 0)[:, None]
    return opened


def draw_lists(rates, runs, looks, every, seed):
    rng = np.random.default_rng(seed)
    agreed = rng.binomial(every, np.array(rates)[None, :, None], (runs, len(rates), looks)).cumsum(
        2
    )
    disagreed = every * np.arange(1, looks + 1) - agreed
    return compute_log_e(agreed, disagreed, 0.95)


def test_a_list_without_a_good_cell_opens_any_at_most_so_often():
    """With nothing good the false share is 1 once any cell opens, so that is as rare as α."""
    opened = open_lists(draw_lists([0.95] * 20, runs=600, looks=40, every=20, seed=7), 0.2)
    share = opened.any(axis=1).mean()
    assert 0 < share < 0.2  # at a share that is seen in 600 runs, and not by luck


@pytest.mark.parametrize(("good", "seed"), [(10, 1), (2, 2)])
def test_the_false_share_is_at_most_that_of_the_list(good, seed):
    rates = [0.985] * good + [0.95] * (20 - good)
    log_e = draw_lists(rates, runs=300, looks=50, every=20, seed=seed)
    opened, alone = open_lists(log_e, 0.2), log_e.max(axis=2) >= log(1 / 0.2)

    def compute_false_share(is_open):
        return (is_open[:, good:].sum(1) / np.maximum(1, is_open.sum(1))).mean()

    assert compute_false_share(opened) < 0.2 * (20 - good) / 20
    assert compute_false_share(opened) < compute_false_share(alone)
    assert opened[:, :good].mean() > 0.99


def test_the_engines_rule_opens_what_arrays_open():
    scores = np.stack(
        [portfolios.draw_log_scores(6, 12, np.random.default_rng(n)) for n in range(9)]
    )
    opened = open_lists(scores - log(portfolios.RISK), portfolios.RISK)
    for run, is_open in zip(scores, opened, strict=True):
        looks = portfolios.find_listed_openings(run)
        assert ((looks < portfolios.NEVER) == is_open).all()
    assert opened.any()
    assert not opened.all()


def open_floors(log_e, alpha):
    """Return which questions of each run are ever opened, one of each cell at each look.

    `log_e` has the shape (runs, cells, floors, looks). Each look is decided by its definition: the
    largest number of questions that have so much evidence, where a cell counts once beside what is
    opened, and of these each cell's lowest floor below those that it has.
    """
    runs, cells, floors, looks = log_e.shape
    size, opened = cells * floors, np.zeros((runs, cells, floors), bool)
    places = np.arange(floors)
    for look in range(looks):
        acting = np.where(opened.any(2), opened.argmax(2), floors)
        scores = np.where(places < acting[..., None], log_e[..., look], -np.inf)
        placed, limits = opened.sum((1, 2)), np.full(runs, np.inf)
        for k in range(1, size + 1):
            limit = np.log(size / (alpha * k))
            is_enough = placed + (scores.max(2) >= limit).sum(1) >= k
            limits = np.where(is_enough, limit, limits)
        is_met = scores >= limits[:, None, None]
        run, cell = np.nonzero(is_met.any(2))
        opened[run, cell, is_met[run, cell].argmax(1)] = True
    return opened


def draw_floor_lists(bands_by_cell, runs, looks, every, seed):
    """Return ln E of each cell at each floor; a unit lies in one of the bands between them."""
    rng = np.random.default_rng(seed)
    bands = np.array(bands_by_cell)
    cells, floors = bands.shape
    band = rng.integers(0, floors, (runs, cells, looks, every))
    agrees = rng.random(band.shape) < bands[np.arange(cells)[None, :, None, None], band]
    counts = [
        np.stack([(kept & (band >= i)).sum(3).cumsum(2) for i in range(floors)], axis=2)
        for kept in (agrees, ~agrees)
    ]
    return compute_log_e(*counts, 0.95)


GOOD_BANDS = (0.875, 0.98, 0.995)  # from the lowest floor on exactly at the threshold


@pytest.mark.parametrize(("good", "seed"), [(5, 3), (1, 4)])
def test_the_false_share_with_floors_is_at_most_that_of_the_list(good, seed):
    """Ten cells at three floors; good ones are wrong at the lowest floor, others at each."""
    bands = [GOOD_BANDS] * good + [(0.95,) * 3] * (10 - good)
    log_e = draw_floor_lists(bands, runs=300, looks=40, every=30, seed=seed)
    is_wrong = np.ones((10, 3), bool)
    is_wrong[:good, 1:] = False
    each = log_e.max(3) >= log(3 / 0.2)  # a risk of each cell, shared by its floors

    def compute_false_share(is_open):
        return ((is_open & is_wrong).sum((1, 2)) / np.maximum(1, is_open.sum((1, 2)))).mean()

    opened = open_floors(log_e, 0.2)
    assert 0 < compute_false_share(opened) < 0.2 * is_wrong.mean()
    assert compute_false_share(opened) < compute_false_share(each)
    assert opened[:, :good, 1:].any(2).mean() > 0.99


@pytest.mark.parametrize("good_cells", [0, 3])
def test_the_engines_rule_with_floors_opens_what_arrays_and_benchmarks_open(good_cells):
    scores = np.stack(
        [
            portfolios.draw_floor_scores(good_cells, 6, np.random.default_rng(n))
            for n in range(6 if good_cells else 30)
        ]
    )
    opened = open_floors(scores - log(portfolios.RISK), portfolios.RISK)
    for run, is_open in zip(scores, opened, strict=True):
        looks = portfolios.find_floor_openings(run, None)
        assert ((looks < portfolios.NEVER) == is_open).all()
        assert (open_by_engine(run) == looks).all()
    assert opened.any()
    assert not opened.all()


def test_figures_with_floors_are_those_of_the_openings():
    rng = np.random.default_rng(portfolios.SEED)
    scores = np.stack([portfolios.draw_floor_scores(3, 6, rng) for _ in range(4)])
    opened = open_floors(scores - log(portfolios.RISK), portfolios.RISK)
    wrong = opened[:, 3:].sum((1, 2)) + opened[:, :3, 0].sum(1)
    figures = portfolios.simulate_floors(0.5, 4, cells=6)
    listed, each = figures["portfolio"], figures["each cell at 5 %"]
    assert listed.wrong == wrong.mean()
    assert listed.false_share == (wrong / opened.sum((1, 2))).mean()
    assert listed.opened == opened[:, :3].any(2).mean()
    alone = scores[:, :3].max(2) >= log(portfolios.FLOORS)
    firsts = (alone.argmax(2) + 1) * portfolios.FLOORED_EVERY
    assert alone.any(2).all()
    assert each.records == firsts.mean()


def open_by_engine(scores):
    """Return the look at which the engine's rule opens each cell at each floor, as a tick asks."""
    cells, floors, looks = scores.shape
    openings, taken = np.full((cells, floors), portfolios.NEVER), ()
    for look in range(looks):
        acting = [min([*np.flatnonzero(row < portfolios.NEVER), floors]) for row in openings]
        places = [
            PortfolioPlace("a", cells * floors, f"c{n}", "v1", 1, scores[n, i, look], str(i))
            for n in range(cells)
            for i in range(acting[n])
        ]
        found = find_openings(Scope(portfolios={"a": taken}), places).places
        for place in found:
            openings[int(place.cell[1:]), int(place.floor)] = look
        taken += found
    return openings


def test_the_closed_form_is_the_integral():
    grid = np.linspace(0.95, 1, 200_001)[1:-1]
    weights = beta.pdf(grid, 0.5, 0.5)
    log_ratio = 245 * np.log(grid / 0.95) + 3 * np.log((1 - grid) / 0.05)
    log_e = logsumexp(log_ratio, b=weights) - np.log(weights.sum())
    assert compute_log_e(245, 3, 0.95) == pytest.approx(4.271300069, abs=1e-8)
    assert log_e == pytest.approx(4.271300069, abs=0.02)
