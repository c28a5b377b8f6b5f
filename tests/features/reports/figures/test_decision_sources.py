"""Decisions by source, and those from none; a file distinguishes no sources."""

from dataclasses import replace

import polars as pl

from rollout.engine.evidence.frames import UNSOURCED_SCHEMA
from rollout.engine.words.evidence_text import describe_sources
from rollout.features.reports.figures.label_sources import (
    UnsourcedDecisions,
    compute_decision_sources,
)
from rollout.kernel.policy.evidence_sources import CountedSource
from tests.engine.evidence.histories import decisions
from tests.engine.evidence.histories import records as history

ROWS = [("a", "bear"), ("b", "bear", {"reviewer": "bo"}), ("c", "none", {"reviewer": "bo"})]


def records(*sources, unsourced=()):
    frame = decisions(*ROWS).with_columns(source=pl.Series(sources, dtype=pl.String))
    dropped = pl.DataFrame(list(unsourced), schema=UNSOURCED_SCHEMA, orient="row")
    return replace(history(None, decision_rows=frame), unsourced_decisions=dropped)


def test_decisions_are_counted_by_source_most_first():
    figures = compute_decision_sources(records("reviews", "people", "people"))
    assert figures.counted == (CountedSource("people", 2, 1), CountedSource("reviews", 1, 1))
    assert describe_sources(figures.counted) == (
        "2 of 3 decisions: service account people for 1 reviewer; 1: reviews made here"
    )


def test_a_file_has_no_sources():
    assert compute_decision_sources(records(None, None, None)).counted == ()


def test_older_decisions_beside_newer_ones_are_named():
    figures = compute_decision_sources(records("imports", None, None))
    assert describe_sources(figures.counted) == (
        "2 of 3 decisions: before sources were stored; 1: imports"
    )


def test_decisions_of_no_source_are_counted_by_reason():
    dropped = [("a", "x", "u-1", "one"), ("b", "x", "u-1", "two"), ("c", "x", "u-1", "one")]
    figures = compute_decision_sources(records(None, None, None, unsourced=dropped))
    assert figures.unsourced == (UnsourcedDecisions("one", 2), UnsourcedDecisions("two", 1))
