"""A compared file is passed over few times, and its losses are those of all pairs."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.files import pair_files
from rollout.features.replay.compare import compare
from rollout.features.reports.inputs import pairs
from tests.properties import examples

ANSWERS = st.sampled_from(["bear", "elk", "", None])
CONFIDENCES = st.sampled_from([0.0, 0.5, 0.75, 0.9, 0.9, 1.0, math.nan, None])


def write_pairs(folder, rows):
    schema = {"human": pl.String, "model": pl.String, "confidence": pl.Float64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    path = folder / "pairs.parquet"
    frame.select(pl.format("c{}", pl.int_range(pl.len())).alias("case_key"), "*").write_parquet(
        path
    )
    return path


def list_losses(rows):
    """Return keys of the 20 surest pairs that differ, in plain Python."""
    differing = [
        (-sure, f"c{number}")
        for number, (human, model, sure) in enumerate(rows)
        if human and model and human != model and sure is not None and not math.isnan(sure)
    ]
    return [key for _, key in sorted(differing)[:20]]


@pytest.mark.slow
@examples(
    given(rows=st.lists(st.tuples(ANSWERS, ANSWERS, CONFIDENCES), min_size=1, max_size=120)),
    fast=8,
    whole=100,
)
def test_the_losses_of_a_file_are_the_surest_pairs_of_all(tmp_path_factory, rows):
    path = write_pairs(tmp_path_factory.mktemp("pairs"), rows)
    for first, installed in ((30, True), (30, False), (10_000, True)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pairs, "FIRST_ROWS", first)
            if not installed:
                patch.setattr(pair_files, "find_spec", lambda _name: None)
            found = compare(path)
        assert [loss.case_key for loss in found.top_losses] == list_losses(rows)
        known = [sure for *_, sure in rows if sure is not None and not math.isnan(sure)]
        assert found.with_confidence == len(known)


@pytest.mark.parametrize("wrong", [1.5, -0.25])
def test_a_confidence_beyond_0_and_1_is_refused_wherever_it_stands(tmp_path, wrong):
    path = write_pairs(tmp_path, [("bear", "elk", 0.5), ("bear", "bear", wrong)])
    with pytest.raises(ValueError, match="confidences run from"):
        compare(path)


@pytest.mark.parametrize(
    ("confidences", "span"),
    [([-0.0, 0.0, 1.0000000001], "0 to 1.0000000001"), ([-1e-12, 0.25], "-1e-12 to 0.25")],
)
def test_a_refused_confidence_is_not_rounded_into_what_is_asked_for(tmp_path, confidences, span):
    path = write_pairs(tmp_path, [("bear", "elk", sure) for sure in confidences])
    with pytest.raises(ValueError, match=f"confidences run from {span}; write 0 to 1"):
        compare(path)


@pytest.mark.slow
def test_losses_of_a_key_that_many_rows_have_are_the_same_each_time(tmp_path):
    generator = np.random.default_rng(5)
    models = [f"m{number}" for number in generator.permutation(600)]
    humans = ["m0" if model == "bear" else "bear" for model in [*models, "bear"]]
    frame = pl.DataFrame(
        {"human": humans, "model": [*models, "bear"], "confidence": 1.0, "case_key": "same"}
    )
    path = tmp_path / "pairs.parquet"
    for seed in range(3):
        frame.sample(fraction=1.0, shuffle=True, seed=seed).write_parquet(path, row_group_size=20)
        listed = [loss.model for loss in compare(path).top_losses]
        assert listed == sorted(models)[:20]


@pytest.fixture
def many_pairs(tmp_path):
    """A file of 60,000 pairs in many sure and few surest ones, a quarter different."""
    generator = np.random.default_rng(3)
    sure = generator.random(60_000)
    models = np.where(generator.random(60_000) < 0.25, "elk", "bear")
    return write_pairs(tmp_path, [("bear", *row) for row in zip(models, sure, strict=True)])


@pytest.mark.parametrize(("installed", "passes"), [(True, 2), (False, 4)])
def test_polars_passes_over_what_duckdb_did_not_count(many_pairs, monkeypatch, installed, passes):
    if not installed:
        monkeypatch.setattr(pair_files, "find_spec", lambda _name: None)
    collected = []
    collect = pl.LazyFrame.collect

    def count_collected(frame, *arguments, **options):
        if "SCAN" in frame.explain():
            collected.append(frame)
        return collect(frame, *arguments, **options)

    monkeypatch.setattr(pl.LazyFrame, "collect", count_collected)
    compare(many_pairs)
    assert len(collected) == passes


def test_few_of_the_pairs_that_differ_are_sorted(many_pairs, monkeypatch):
    sorted_rows = []
    sort_losses = pairs._sort_losses

    def count_rows(differing, limit):
        sorted_rows.append(differing.collect().height)
        return sort_losses(differing, limit)

    monkeypatch.setattr(pairs, "_sort_losses", count_rows)
    assert len(compare(many_pairs).top_losses) == 20
    assert len(sorted_rows) == 1
    assert 20 <= sorted_rows[0] < 150  # of 15,000: a third of all pairs bounds the 20 surest
