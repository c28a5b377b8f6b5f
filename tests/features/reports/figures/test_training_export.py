"""Training rows in three forms, one manifest, and one hash that anybody can make again."""

import json
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

import polars as pl
import pytest

from rollout.engine.evidence.case_placement import place_cases
from rollout.engine.records.reviews import DROP, RELABEL, CleaningChoice
from rollout.features.reports.figures.label_issues import (
    FORMATS,
    build_export_from_records,
    compute_digest,
    format_rows,
    read_manifest_hash,
    read_training_rows,
    render_manifest,
)
from rollout.features.reports.figures.label_sources import (
    ASSIGNMENT_SCHEMA,
    HUMAN_SOURCES,
    SOURCES,
    TRAINING_SCHEMA,
)
from rollout.features.reports.inputs.inputs import MODEL
from tests.features.reports.conftest import NOON, Case, records_of

NIGHT = NOON + timedelta(hours=9)
CASES = [
    Case("b,1", human="bear", model={"v1": "bear"}, episode="e\n1"),
    Case(
        '"c"', human="bear", model={"v2": "bear"}, outcome="no-bear", at=NOON + timedelta(hours=9)
    ),
    Case("ä", at=None, human="no-bear", hour=2),
    Case("nobody", model={"v1": "bear"}),
    Case("bad", human="bear", model={"v1": "bear"}),
    Case("audit", human="no-bear", model={"v1": "bear"}),
    Case("alone", model={"v1": "bear"}),
]
WHO = [("audit", "v1", MODEL, 0.3), ("alone", "v1", MODEL, None)]
CHOICES = [CleaningChoice(key="bad", lever="alarm", choice=DROP, by="mia", at=NOON)]


def exported(policy, cases=CASES, sources=HUMAN_SOURCES, choices=CHOICES, kept_back=0):
    records = records_of(cases)
    placed = place_cases(records, policy, bytes(32)).cases
    return build_export_from_records(
        policy,
        records,
        placed,
        sources=sources,
        assigned_cases=pl.DataFrame(WHO, schema=ASSIGNMENT_SCHEMA, orient="row"),
        choices=choices,
        withheld_count=kept_back,
    )


def file_of(export, folder, form):
    file = folder / f"rows.{form}"
    file.write_bytes(b"".join(format_rows(export.rows, form)))
    return file


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_gives_back_the_rows_and_their_hash(bears, tmp_path, form):
    export = exported(bears)
    rows = read_training_rows(file_of(export, tmp_path, form))
    assert rows.equals(export.rows)
    assert compute_digest(rows) == export.manifest.sha256


@pytest.mark.parametrize("form", FORMATS)
def test_no_row_at_all_is_a_file_too(bears, tmp_path, form):
    export = exported(bears, cases=[Case("nobody")])
    assert read_training_rows(file_of(export, tmp_path, form)).equals(export.rows)
    assert (export.manifest.rows, export.manifest.first) == (0, None)
    assert export.manifest.sha256 == sha256(b"").hexdigest()


def test_the_hash_is_that_of_the_json_lines(bears):
    export = exported(bears)
    lines = b"".join(format_rows(export.rows, "jsonl"))
    assert sha256(lines).hexdigest() == export.manifest.sha256
    first = json.loads(lines.splitlines()[0])
    assert list(first) == list(TRAINING_SCHEMA) == list(export.manifest.columns)
    assert first["occurred_at"] == "2026-03-02T20:00:00.000000Z"
    assert [json.loads(line)["case_key"] for line in lines.splitlines()] == [
        '"c"',
        "audit",
        "b,1",
        "ä",
    ]


def test_the_manifest_counts_what_is_there_and_what_is_not(bears):
    made = exported(bears, kept_back=3).manifest
    assert (made.rollout, made.policy, made.versions) == ("bear-alarm", bears.hash, ("v1", "v2"))
    assert {s.source: s.rows for s in made.sources if s.rows} == {
        "blind": 2,
        "audit": 1,
        "outcome": 1,
    }
    assert made.weight == pytest.approx(3 + 1 / 0.3)
    assert made.excluded == {
        "no label": 1,
        "dropped": 1,
        "not asked for": 1,
        "open for review": 3,
    }
    assert made.cleaned == {"relabel": 0, "drop": 1, "keep": 0}
    assert (made.first, made.last) == (NOON, NIGHT)
    assert [s.source for s in exported(bears, sources=SOURCES).manifest.sources] == list(SOURCES)


def test_the_same_records_in_any_order_make_the_same_manifest(bears):
    same = render_manifest(exported(bears).manifest)
    assert render_manifest(exported(bears, cases=CASES[::-1]).manifest) == same


@pytest.mark.parametrize(
    "change",
    [
        {"cases": CASES[1:]},
        {"choices": ()},
        {"choices": [replace(CHOICES[0], choice=RELABEL, label="no-bear")]},
        {"sources": SOURCES},
        {"cases": [replace(CASES[0], human="no-bear"), *CASES[1:]]},
    ],
)
def test_other_rows_have_another_hash(bears, change):
    assert exported(bears, **change).manifest.sha256 != exported(bears).manifest.sha256


def test_what_is_no_export_is_refused_with_what_is_missing(tmp_path):
    (tmp_path / "rows.csv").write_text("case_key\na\n")
    with pytest.raises(ValueError, match="no column site"):
        read_training_rows(tmp_path / "rows.csv")
    with pytest.raises(ValueError, match=r"name it \.jsonl, \.csv, \.parquet"):
        read_training_rows(tmp_path / "rows.txt")
    with pytest.raises(ValueError, match="no manifest"):
        read_manifest_hash(tmp_path / "rows.csv")
    with pytest.raises(ValueError, match="no form xml"):
        format_rows(pl.DataFrame(schema=TRAINING_SCHEMA), "xml")
