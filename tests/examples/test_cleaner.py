"""The label cleaner: chance errors are corrected, the batch with systematic errors is held.

Seed 5 was chosen as a middling one of the seeds 0 to 9. In all ten both halves of batch-c stay in
shadow, both halves of batch-a and batch-b reach autonomous, and nothing narrows. Tolerances of
dates are the spread of the ten, with three days on each side. Accuracy over the ten seeds: as
annotated 89.3 to 93.0 %, corrected by the model everywhere 93.3 to 96.3 %, as the rollout left the
labels 96.8 to 98.5 %, all right 97.0 to 98.5 % (`train_again.py` for each, 22 November 2026).
"""

import csv
import gzip
import re
import runpy
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.engine.events import Narrowed, Suspended, Widened
from rollout.kernel.calendar.instants import Cell
from tests.docs.pages import ROOT
from tests.engine.slots.facts import compute_replay_facts

pytestmark = pytest.mark.simulation

FOLDER = ROOT / "examples/cleaner"
RECORDS = FOLDER / "records"
FIRST = datetime(2025, 10, 6, tzinfo=UTC)
HALVES = ("first", "second")
README = (FOLDER / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def train_again():
    sys.path.insert(0, str(FOLDER))
    yield SimpleNamespace(**runpy.run_path(str(FOLDER / "train_again.py")))
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def story(train_again):
    return train_again.make_story(5)


@pytest.fixture(scope="module")
def replayed(train_again):
    return train_again.replay_cleaner()


@pytest.fixture(scope="module")
def facts(replayed):
    return compute_replay_facts(replayed)


def read_rows(path):
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return list(csv.DictReader(text.decode().splitlines()))


def conditions(facts, cell):
    (evidence,) = (item for item in facts.evidence if (item.site, item.window) == cell)
    return {item.condition: item for item in evidence.gate.conditions}


@pytest.mark.parametrize("half", HALVES)
def test_agreement_passes_in_the_held_batch_and_recall_does_not(facts, half):
    gate = conditions(facts, ("batch-c", half))
    assert gate["agreement at least 85 %"].met
    recall = gate["recall of correct at least 60 %"]
    assert not recall.met
    assert recall.estimate < 0.5
    assert recall.n > 90  # not for want of wrong labels
    assert not gate["precision of correct at least 60 %"].met


def test_the_other_batches_reach_autonomous_and_nothing_narrows(replayed):
    widened = [event for event in replayed.result.events if isinstance(event, Widened)]
    days = {(e.cell, e.to_stage): (e.at - FIRST) / timedelta(days=1) for e in widened}
    cells = [Cell(batch, half) for batch in ("batch-a", "batch-b") for half in HALVES]
    assert {cell for cell, _ in days} == set(cells)
    assert all(2 <= days[cell, "supervised"] <= 15 for cell in cells)
    assert all(12 <= days[cell, "autonomous"] <= 40 for cell in cells)
    assert not [e for e in replayed.result.events if isinstance(e, Narrowed | Suspended)]


def test_plain_rules_would_have_opened_the_held_batch(facts, replayed):
    naive = [item for item in facts.naive_openings if item.site == "batch-c"]
    assert {(item.window, item.rule) for item in naive} >= {
        (half, rule) for half in HALVES for rule in {item.rule for item in naive}
    }
    assert len(naive) == 6
    assert all(item.wrong.count > 60 for item in naive)
    assert all(item.wrong.count > 5 * item.human_wrong.count for item in naive)
    confident = (
        replayed.records.predictions.filter(pl.col("confidence") >= 0.9)
        .join(replayed.history.cases.filter(site="batch-c"), on="case_key")
        .join(replayed.records.decisions, on="case_key", suffix="_human")
    )
    assert (confident["value:label"] == confident["value:label_human"]).mean() > 0.85


def test_the_report_names_the_batch(facts):
    (search,) = facts.slice_searches
    assert search.slices[0].name.startswith("batch-c")


def test_training_again_brings_what_the_page_says(train_again, story, replayed):
    batches = list(story.batches.values())
    digits = train_again.load_digit_set(5)
    accuracy = {
        name: train_again.measure_accuracy(digits, batches, labels, 5)
        for name, labels in train_again.build_label_sets(story, replayed).items()
    }
    assert dict(re.findall(r"\| ([a-z ]+) \| (\d\d\.\d) % \|", README)) == {
        name: f"{value:.1%}".removesuffix("%") for name, value in accuracy.items()
    }
    raw, everywhere, left, right = accuracy.values()
    assert raw + 0.02 < everywhere < left - 0.02
    assert left > right - 0.01


def test_training_rows_stand_for_all_labels_by_their_weights(train_again, replayed):
    rows = train_again.count_training_rows(replayed)
    assert {source for _, source in rows} == {"audit", "blind"}
    assert {batch for batch, source in rows if source == "audit"} == {"batch-a", "batch-b"}
    assert all(
        count == weight for (_, source), (count, weight) in rows.items() if source == "blind"
    )
    audits = [row for (_, source), row in rows.items() if source == "audit"]
    assert all(weight == pytest.approx(5 * count) for count, weight in audits)
    deciders = train_again.find_deciders(replayed)
    total = sum(weight for _, weight in audits)
    assert total == pytest.approx(deciders["by_model"].sum(), rel=0.15)  # of a fifth, by chance


def test_the_page_has_the_training_rows_of_each_batch(train_again, replayed):
    rows = train_again.count_training_rows(replayed)
    table = []
    for batch in ("batch-a", "batch-b", "batch-c"):
        blind, audit = (rows.get((batch, source), (0, 0.0)) for source in ("blind", "audit"))
        counts = " | ".join(f"{count:,.0f}" for count in (blind[0], audit[0], blind[1] + audit[1]))
        table.append(f"| {batch} | {counts} |")
    assert "\n".join(table) in README


def test_the_first_hundred_of_the_work_list_hold_what_the_page_says(story, tmp_path):
    arguments = re.search(r"^rollout (clean .*)$", README, re.MULTILINE)[1].split()
    paths = [str(ROOT / word) if word.startswith("examples/") else word for word in arguments]
    paths[-1] = str(tmp_path / "list.csv")
    done = CliRunner().invoke(app, paths)
    assert done.exit_code == 0, done.output
    wrong = {row["case_key"] for row in read_rows(RECORDS / "outcomes.csv.gz")
             if row["label"] == "correct"}  # fmt: skip
    orders = [read_rows(tmp_path / "list.csv"), read_rows(FOLDER / "cleanlab.csv")]
    found = [sum(row["case_key"] in wrong for row in order[:100]) for order in orders]
    found.append(round(100 * len(wrong) / len(story.checks)))
    shown = re.findall(r"^\| (?:this list|cleanlab 2.9.0|random) \| (\d+) \|", README, re.MULTILINE)
    assert [int(count) for count in shown] == found
    assert found[0] >= found[1] > 3 * found[2]
    batch = story.batches["batch-c"]
    systematic = {
        f"c{number:04}" for number in np.flatnonzero((batch.digits == 9) & (batch.given == 4))
    }
    assert len(systematic) > 100
    for order in orders:
        assert sum(row["case_key"] in systematic for row in order[:100]) <= 3


def test_the_held_batch_has_the_fewest_wrong_labels(story):
    shares = {name: (b.given != b.digits).mean() for name, b in story.batches.items()}
    assert shares["batch-c"] < 0.12
    assert min(shares["batch-a"], shares["batch-b"]) > 0.16


def test_every_table_has_the_cases_of_the_story_in_order(story):
    keys = [check.key for check in story.checks]
    for name in ("cases", "predictions", "readings", "annotations", "outcomes"):
        assert [row["case_key"] for row in read_rows(RECORDS / f"{name}.csv.gz")] == keys
