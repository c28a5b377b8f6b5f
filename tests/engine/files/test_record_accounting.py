"""Rows read = rows used + rejected rows, for any rows; and each for the reason it should be.

The reasons are worked out a second time here, row by row and without frames.
"""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.evidence.frames import RecordKind
from rollout.engine.files.files import RecordPaths, read_record_files
from tests.engine.files.row_sums import adds_up
from tests.properties import examples

KEYS = ["a", "b", "c", ""]
SITES = ["creek", ""]  # a key at two sites refuses the files
TIMES = ["2027-05-03T10:00:00", "2019-02-29T10:00:00", "late", ""]
LABELS = ["0", "no", ""]
COLUMNS = {
    RecordKind.PREDICTIONS: {
        "case_key": KEYS,
        "site": SITES,
        "occurred_at": TIMES,
        "model_version": ["v1", "v2", ""],
        "label": LABELS,
        "confidence": ["0.5", "0.50", "high", ""],
    },
    RecordKind.DECISIONS: {
        "case_key": KEYS,
        "site": SITES,
        "reviewer": ["ana", "bo", ""],
        "label": LABELS,
        "decided_at": ["2027-05-03T12:00Z", "2027-05-03T14:00+02:00", "soon", ""],
    },
}
WHO = {RecordKind.PREDICTIONS: "model_version", RecordKind.DECISIONS: "reviewer"}
BROKEN = ["a", "a,,,,,,,", 'a,"46.10', 'x"y,,,,', ""]


def rows_of(kind):
    cells = st.tuples(*(st.sampled_from(pool) for pool in COLUMNS[kind].values()))
    rows = cells.map(",".join).filter(lambda row: row.strip(","))  # a blank line is no row
    return st.lists(rows | st.sampled_from(BROKEN), max_size=14)


def text_of(kind, rows):
    return "\n".join([",".join(COLUMNS[kind]), *rows]) + "\n"


def taken_apart(kind, rows):
    """Return by line the cells of the rows that have as many as the header and no quote."""
    names = list(COLUMNS[kind])
    split = {line: row.split(",") for line, row in enumerate(rows, start=2) if '"' not in row}
    return {
        line: dict(zip(names, cells, strict=True))
        for line, cells in split.items()
        if len(cells) == len(names)
    }


def torn(rows, good):
    return {line for line, row in enumerate(rows, start=2) if row and line not in good}


def cell_fault(kind, row):
    if not row["case_key"] or not row[WHO[kind]]:
        return "missing-value"
    if row.get("confidence") == "high":
        return "bad-number"
    return "unreadable-time" if row.get("decided_at") == "soon" else None


def content(kind, row):
    if kind is RecordKind.PREDICTIONS:
        return row["label"], row["confidence"].rstrip("0")
    return row["label"], row["decided_at"] != ""  # both ways of writing it are one instant


def fates(kind, rows, described):
    """Return by line the reason why a row is rejected."""
    reasons, groups = {}, {}
    for line, row in rows.items():
        reason = cell_fault(kind, row)
        if reason is None and row["case_key"] not in described:
            reason = "no case yet"
        if reason is None:
            group = groups.setdefault((row["case_key"], row[WHO[kind]]), {})
            if content(kind, row) in group.values():
                reason = "duplicate"
            else:
                group[line] = content(kind, row)
        reasons[line] = reason
    for group in groups.values():
        several = len({label for label, _ in group.values()}) > 1
        unclear = "several-labels" if kind is RecordKind.DECISIONS else "conflict"
        later = list(group)[1:]
        reasons |= dict.fromkeys(later, "conflict")
        reasons |= dict.fromkeys(group, unclear) if several else {}
    return {line: reason for line, reason in reasons.items() if reason}


def read(texts):
    with tempfile.TemporaryDirectory() as folder:
        for kind, text in texts.items():
            Path(folder, f"{kind}.csv").write_text(text, encoding="utf-8")
        sources = RecordPaths(**{kind.value: Path(folder, f"{kind}.csv") for kind in texts})
        return read_record_files(sources, levers=["alarm"], zones={}, default_zone="Europe/Vienna")


@pytest.mark.slow
@examples(given(rows_of(RecordKind.PREDICTIONS), rows_of(RecordKind.DECISIONS)), fast=25, whole=150)
def test_every_row_is_used_or_set_aside_for_the_reason_it_should_be(predicted, decided):
    rows = {RecordKind.PREDICTIONS: predicted, RecordKind.DECISIONS: decided}
    records = read({kind: text_of(kind, lines) for kind, lines in rows.items()})
    good = {kind: taken_apart(kind, lines) for kind, lines in rows.items()}
    described = {r["case_key"] for by in good.values() for r in by.values() if r["site"]} - {""}
    assert set(records.cases["case_key"]) == described
    for kind, lines in rows.items():
        aside = records.rejected.filter(records=kind.value)
        expected = fates(kind, good[kind], described)
        reasons = dict(aside.select("line", "reason").iter_rows())
        broken = torn(lines, good[kind])
        assert {line: reason for line, reason in reasons.items() if line not in broken} == expected
        assert broken <= set(reasons)
        assert len(reasons) == aside.height
        count = records.row_counts[kind]
        assert count.rows == len([row for row in lines if row])
        assert adds_up(count)
        assert count.used == getattr(records, kind).height == count.rows - aside.height


@pytest.mark.slow
@examples(
    given(rows_of(RecordKind.PREDICTIONS), rows_of(RecordKind.DECISIONS), st.data()),
    fast=12,
    whole=60,
)
def test_cases_and_outcomes_add_up_too(predicted, decided, data):
    few = st.lists(st.sampled_from([*"abc", ""]).map(lambda key: key + ",creek,x"), max_size=6)
    records = read(
        {
            RecordKind.CASES: "\n".join(["case_key,site,occurred_at", *data.draw(few)]),
            RecordKind.PREDICTIONS: text_of(RecordKind.PREDICTIONS, predicted),
            RecordKind.DECISIONS: text_of(RecordKind.DECISIONS, decided),
            RecordKind.OUTCOMES: "\n".join(["case_key,label,harm", *data.draw(few)]),
        }
    )
    assert all(adds_up(count) for count in records.row_counts.values())
    assert records.outcomes["case_key"].is_unique().all()
    assert records.rejected.select("records", "line").is_unique().all()
