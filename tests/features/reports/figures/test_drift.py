from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from scipy.stats import hypergeom

from rollout.engine.evidence.frames import ATTRIBUTE_PREFIX
from rollout.features.reports.figures.drift import (
    KOLMOGOROV_SMIRNOV,
    PERMUTATIONS,
    TOTAL_VARIATION,
    Drift,
    build_drift_features,
    compute_distances,
    compute_drift,
    compute_ordered_distances,
    find_shadow_exits,
    find_spans,
    mark_significant,
    split_by_site,
)
from rollout.features.reports.pages.charts import draw_drift_chart, format_drift_name
from tests.features.reports.collects import count_collects

DAYS, A_DAY = 42, 12


@pytest.fixture(scope="module")
def quiet(replay_of, case):
    """Return six weeks at the creek, twelve cases a day, all of one kind."""
    first = case("x").at
    cases = [
        case(f"c{n:03}", first + timedelta(days=n // A_DAY, minutes=20 * (n % A_DAY)),
             human="bear" if n % 3 else "no-bear", model={"v1": "bear" if n % 3 else "no-bear"})
        for n in range(DAYS * A_DAY)
    ]  # fmt: skip
    return replay_of(cases)


def with_attribute(inputs, name, values):
    """Return the same inputs with an attribute of the cases, in order of their keys."""
    cases = inputs.records.cases.sort("case_key")
    cases = cases.with_columns(pl.Series(ATTRIBUTE_PREFIX + name, list(values), dtype=pl.String))
    return replace(inputs, records=replace(inputs.records, cases=cases))


def of(inputs, name):
    return next(d for d in compute_drift(inputs).changes if d.name == name)


def days():
    return np.arange(DAYS * A_DAY) // A_DAY


def test_an_attribute_that_changes_is_named_with_what_moved(quiet):
    values = np.where((days() >= 21) & (np.arange(DAYS * A_DAY) % 2 == 0), "new", "old")
    found = compute_drift(with_attribute(quiet, "form", values))
    first = found.changes[0]
    assert (first.site, first.feature, first.name, first.measure) == (
        "creek", "attribute", "form", TOTAL_VARIATION,
    )  # fmt: skip
    assert first.differs
    assert first.distance == pytest.approx(0.5)
    assert first.summary == "new: 0\u00a0% → 50.0\u00a0%"
    assert [d.name for d in found.changes if d.differs] == ["form"]


def test_both_spans_are_whole_weeks_of_the_sites_calendar(quiet):
    found = of(with_attribute(quiet, "form", np.where(days() < 30, "a", "b")), "form")
    assert found.first == (date(2026, 3, 2), date(2026, 3, 15))
    assert found.last == (date(2026, 3, 30), date(2026, 4, 12))
    assert (found.n_first, found.n_last) == (14 * A_DAY, 14 * A_DAY)


@pytest.mark.slow
def test_what_stays_the_same_is_never_named(quiet):
    generator = np.random.default_rng(1)
    named = 0
    for _ in range(25):
        values = generator.choice(["a", "b", "c"], DAYS * A_DAY)
        named += any(
            d.differs for d in compute_drift(with_attribute(quiet, "lens", values)).changes
        )
    assert named <= 4  # 1.25 are expected at most


@pytest.mark.slow
def test_days_that_are_alike_within_are_no_change(quiet):
    """Each day all cases have one value; case by case this would be a change in most runs."""
    generator = np.random.default_rng(2)
    named, by_case = 0, 0
    for _ in range(25):
        values = np.repeat(generator.choice(["rain", "sun"], DAYS), A_DAY)
        found = of(with_attribute(quiet, "sky", values), "sky")
        named += found.differs
        by_case += found.distance > 1.96 * np.sqrt(2 * 0.25 / (14 * A_DAY))
    assert named <= 4
    assert by_case >= 8


def test_chance_deals_out_whole_days(quiet):
    """Of 28 days 11 have rain; how many of them fall into the first span is hypergeometric."""
    rain = np.isin(np.arange(DAYS), [0, 1, 4, 7, 8, 9, 13, 30, 33, 36, 41])
    found = of(with_attribute(quiet, "sky", np.repeat(np.where(rain, "rain", "sun"), A_DAY)), "sky")
    law = hypergeom(28, 11, 14)
    apart = {k: abs(2 * k - 11) / 14 for k in range(12)}
    assert found.distance == pytest.approx(3 / 14)
    assert found.by_chance == pytest.approx(5 / 14)
    assert sum(law.pmf(k) for k in apart if apart[k] >= 5 / 14) > 0.05
    assert sum(law.pmf(k) for k in apart if apart[k] > 5 / 14) < 0.05
    as_far = sum(law.pmf(k) for k in apart if apart[k] >= 3 / 14)
    assert found.p == pytest.approx(as_far, abs=0.02)


@pytest.mark.parametrize(
    ("chances", "named"),
    [
        ((0.001, 0.011, 0.02, 0.04, 0.2), (True, True, False, False, False)),
        ((0.03, 0.04), (False, False)),  # the nearer one is not reached
        ((0.04, 0.02), (True, True)),
        ((0.05,), (True,)),
        ((), ()),
    ],
)
def test_each_further_name_has_more_room_until_the_first_that_fails(quiet, chances, named):
    any_one = compute_drift(quiet).changes[0]
    marked = mark_significant([replace(any_one, p=p, differs=False) for p in chances])
    assert tuple(each.differs for each in marked) == named


def test_numbers_are_compared_in_their_order(quiet):
    generator = np.random.default_rng(3)
    values = generator.normal(np.where(days() >= 21, 12.0, 10.0), 1.0)
    found = of(with_attribute(quiet, "depth", [f"{v:.4f}" for v in values]), "depth")
    assert (found.measure, found.differs) == (KOLMOGOROV_SMIRNOV, True)
    assert found.distance == pytest.approx(0.68, abs=0.08)
    assert found.summary.startswith("mean 10 → 12")


def test_the_distances_are_those_by_hand():
    counts = np.array([[8, 2, 0], [6, 2, 2], [1, 4, 5], [2, 2, 6]])
    first = np.array([[True, True, False, False], [True, False, True, False]])
    assert compute_distances(counts, first=first) == pytest.approx([0.55, 0.15])
    assert compute_ordered_distances(counts, first=first)[0] == pytest.approx(0.55)


def test_names_of_cases_are_not_compared_and_that_is_said(quiet):
    found = compute_drift(with_attribute(quiet, "file", (f"f{n}.jpg" for n in range(DAYS * A_DAY))))
    assert found.left_out == ("file: 504 different values name cases, not kinds",)
    assert all(d.name != "file" for d in found.changes)


def test_a_pictures_address_is_no_attribute(quiet):
    values = np.where(days() >= 21, "bear-2.png", "bear-1.png")
    drift = compute_drift(with_attribute(quiet, "media", values))
    assert "media" not in {item.name for item in drift.changes}
    assert not any(item.attribute == "media" for item in drift.new_values)


def test_people_and_versions_are_compared_with_their_start(quiet):
    things = {(d.feature, d.name, d.version) for d in compute_drift(quiet).changes}
    assert things == {("human label", "alarm", None), ("model's answer", "alarm", "v1")}


def test_a_version_that_loses_its_confidence_is_named(quiet):
    shares = np.where(days() < 25, 0.9, 0.7) + np.arange(DAYS * A_DAY) % 7 / 100
    own = quiet.records.predictions.sort("case_key").with_columns(confidence=pl.Series(shares))
    found = compute_drift(replace(quiet, records=replace(quiet.records, predictions=own)))
    (changed,) = [d for d in found.changes if d.differs]
    assert (changed.feature, changed.version, changed.summary) == (
        "confidence",
        "v1",
        "mean 0.93 → 0.73",
    )
    assert format_drift_name(changed) == "creek, confidence, v1"


def test_too_few_days_are_not_compared(replay_of, case):
    few = [case(f"c{n}", case("x").at + timedelta(days=n), human="bear", model={"v1": "bear"})
           for n in range(7)]  # fmt: skip
    found = compute_drift(replay_of(few))
    assert (found.compared, found.changes) == (0, ())
    assert found.summary == "nothing was compared: no site has two spans of at least 4 days"
    assert draw_drift_chart(found.changes, prefix="x") is None


@pytest.mark.parametrize(
    ("days", "spans"),
    [
        (range(8), ((0, 3), (4, 7))),
        (range(14), ((0, 6), (7, 13))),
        (range(27), ((0, 6), (20, 26))),
        (range(28), ((0, 13), (14, 27))),
        ((0, 1, 2, 3, 40, 41, 42), None),  # three days with cases in the last span
        ((), None),
    ],
)
def test_spans_are_as_long_as_the_days_allow(days, spans):
    assert find_spans(np.array(days, dtype=np.int64)) == spans


def test_a_value_that_came_after_shadow_is_listed_with_its_first_case(quiet):
    left = find_shadow_exits(quiet)["creek"]
    values = np.where(days() >= 30, "snow", "grass")
    (unseen,) = compute_drift(with_attribute(quiet, "ground", values)).new_values
    assert (unseen.value, unseen.count, unseen.first_case) == ("snow", 12 * A_DAY, "c360")
    assert left < unseen.first_seen_at
    assert unseen.summary.startswith("ground snow at creek: 144 of ")


def test_no_value_is_new_where_the_report_has_no_case_from_shadow(quiet):
    left = find_shadow_exits(quiet)["creek"]
    told = with_attribute(quiet, "ground", np.full(len(days()), "grass"))
    cases = told.records.cases.filter((pl.col("site") != "creek") | (pl.col("occurred_at") >= left))
    later = replace(told, records=replace(told.records, cases=cases))
    assert 0 < len(later.records.cases) < len(told.records.cases)
    assert compute_drift(later).new_values == ()


def test_a_value_of_the_shadow_is_not_new(quiet):
    values = np.where((days() == 0) | (days() >= 30), "snow", "grass")
    assert compute_drift(with_attribute(quiet, "ground", values)).new_values == ()


def test_where_no_site_left_shadow_nothing_can_be_new(quiet):
    shadow = replace(quiet, events=())
    found = compute_drift(with_attribute(shadow, "ground", np.where(days() >= 30, "snow", "grass")))
    assert (found.left_shadow, found.new_values) == ((), ())


def test_more_comparisons_ask_for_more(quiet):
    found = compute_drift(with_attribute(quiet, "form", np.where(days() < 21, "a", "b")))
    assert found.changes[0].p == pytest.approx(1 / (1 + PERMUTATIONS))
    assert found.summary.startswith(f"{found.compared} comparisons: ")


def test_the_chart_shows_the_farthest(quiet):
    found = compute_drift(with_attribute(quiet, "form", np.where(days() < 21, "a", "b"))).changes
    assert isinstance(found[0], Drift)
    assert "creek, form is farthest" in draw_drift_chart(found, prefix="drift")


def test_the_sites_of_a_feature_are_compared_without_a_frame_each(quiet):
    features, _ = build_drift_features(quiet)
    building = count_collects(lambda: build_drift_features(quiet))
    splitting = sum(count_collects(lambda f=feature: split_by_site(f)) for feature in features)
    assert len(features) > 2
    assert count_collects(lambda: compute_drift(quiet)) - building - splitting <= 2


@pytest.mark.parametrize(
    ("late", "named"), [("bc", "b: 50.0 % → 50.0 %"), ("cc", "b: 50.0 % → 0 %")]
)
def test_of_equal_changes_the_first_value_that_occurs_is_named(quiet, late, named):
    spans = ["bc"] * 14 + ["aa"] * 14 + [late] * 14
    values = [values[n % 2] for values in spans for n in range(A_DAY)]
    words = of(with_attribute(quiet, "lens", values), "lens").summary
    assert words.replace("\xa0", " ") == named
