"""Counts of a history in parts equal those of the whole, and their ledger that of its records."""

import csv
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.evidence.case_placement import number_units
from rollout.engine.evidence.frames import RecordKind
from rollout.engine.files.files import RecordPaths
from rollout.engine.files.questions import FileChoices, OpenQuestionsError
from rollout.engine.slots.engine import VersionsAtOnceError
from rollout.engine.slots.options import ReplayOptions
from rollout.features.lake.counting import (
    FORM,
    count_tables,
    count_units,
    describe_pairs,
    read_counts,
    replay_counts,
)
from rollout.features.lake.engines import LakeError
from rollout.features.lake.part_counts import count_classes, merge_counts
from rollout.features.replay.replay import format_ledger, replay_records
from rollout.features.replay.requests import ReplayRequest, read_request_records
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.units import SILENT
from tests.properties import examples

pytestmark = pytest.mark.slow

POLICY = """
rollout: lake
timezone: Europe/Vienna
levers:
  - {id: alarm, labels: [bear, fox, none], costs: [{right: bear, cost: 5}, {cost: 1}]}
sites: [north, south]
windows: [{id: day, hours: "06:00-18:00"}, {id: night, hours: 24/7}]
evidence: {unit: UNIT, grace: 2h, outside: blind}
gates:
  - to: supervised
    require: [{measure: agreement, at_least: 80%}]
    minimum: {units: 20, days: 1, reviewers: 1}
tick: 1h
"""
START = datetime(2027, 3, 1, tzinfo=UTC)
UNITS = {"case": "case", "named": "episode", "spans": "episode, episode_span: 45m"}
LABELS = st.sampled_from(["bear", "bear", "bear", "fox", "none", ""])
KEYS = [f"c{number}" for number in range(14)]


def read_rules(unit="case", more=""):
    return parse_policy(POLICY.replace("UNIT", UNITS[unit]) + more)


def at(hours):
    return (START + timedelta(hours=hours)).isoformat()


@st.composite
def histories(draw):
    """Return rows of cases, predictions, decisions and outcomes, in any order, some repeated."""
    cases, predictions, decisions, outcomes = [], [], [], []
    for key in draw(st.sets(st.sampled_from(KEYS), min_size=1)):
        hour = draw(st.sampled_from([0, 0.25, 1, 1.5, 5, 7, 30]))
        site = draw(st.sampled_from(["north", "north", "south", "elsewhere"]))
        episode = draw(st.sampled_from(["", "", "e1", "e2"]))
        cases.append((key, site, draw(st.sampled_from([at(hour), at(hour), ""])), episode))
        for version in draw(st.sets(st.sampled_from(["v1", "v2"]))):
            predicted_at = at(hour + draw(st.sampled_from([0, 0, 0.5, 9])))
            predictions.append((key, version, draw(LABELS), predicted_at))
        for reviewer in draw(st.sets(st.sampled_from(["ana", "bo", "v2"]))):
            exposure = draw(st.sampled_from(["blind", "blind", "assisted", "revealed"]))
            decided_at = at(hour + draw(st.sampled_from([0.1, 0.2, 4])))
            decisions.append((key, reviewer, draw(LABELS), decided_at, exposure))
        if draw(st.booleans()):
            outcomes.append((key, draw(LABELS) or "none", at(hour + 0.05)))
    decisions += draw(st.lists(st.sampled_from(decisions), max_size=2)) if decisions else []
    decisions.append(("stray", "ana", "bear", at(1), "blind"))
    return cases, draw(st.permutations(predictions)), draw(st.permutations(decisions)), outcomes


HEADS = {
    "cases": ("case_key", "site", "occurred_at", "episode"),
    "predictions": ("case_key", "model_version", "label", "predicted_at"),
    "decisions": ("case_key", "reviewer", "label", "decided_at", "exposure"),
    "outcomes": ("case_key", "label", "outcome_at"),
}


def build_frames(history):
    return {
        name: pl.DataFrame(rows, schema=dict.fromkeys(head, pl.String), orient="row")
        for (name, head), rows in zip(HEADS.items(), history, strict=True)
    }


def write_history(folder, history):
    for (name, head), rows in zip(HEADS.items(), history, strict=True):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([head, *rows])
    files = (folder / f"{name}.csv" for name in ("predictions", "decisions", "cases", "outcomes"))
    return ReplayRequest(
        None, RecordPaths(*files), choices=FileChoices(equal_sides=True, backtest=False)
    )


def count_in_parts(connection, frames, policy, parts):
    return count_units(**put(connection, frames), policy=policy, parts=parts)


def put(connection, frames):
    tables = {}
    for name, frame in frames.items():
        connection.register(f"{name}_rows", frame.to_arrow())
        tables[name] = connection.table(f"{name}_rows")
    return tables


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect() as opened:
        yield opened


def refuse(count):
    """Return what a count gives: its hash, or the kind of its refusal."""
    try:
        return count().hash
    except (LakeError, OpenQuestionsError, VersionsAtOnceError) as error:
        return f"{type(error).__name__}: {error}"


@examples(
    given(history=histories(), unit=st.sampled_from([*UNITS]), parts=st.integers(1, 4)),
    fast=6,
    whole=60,
)
def test_parts_count_as_the_whole(connection, history, unit, parts):
    policy, frames = read_rules(unit), build_frames(history)
    whole = refuse(lambda: count_units(**frames, policy=policy))
    assert refuse(lambda: count_in_parts(connection, frames, policy, parts)) == whole


@pytest.mark.parametrize("blank", ["\t", "\n", "\x85", "\u2003"])
def test_a_blank_episode_is_none_whatever_it_is_written_with(connection, blank):
    """Cases of a site's clock spans are in one part, whether their episode is missing or blank."""
    rows = ([], [], [], [])
    for number, episode in enumerate(["", "", blank, "", blank, ""]):
        key, hour = f"c{number}", number / 10
        rows[0].append((key, "north", at(hour), episode))
        rows[1].append((key, "v1", "bear", at(hour)))
        rows[2].append((key, "ana", "fox", at(hour + 0.05), "blind"))
    policy, frames = read_rules("spans"), build_frames(rows)
    whole = count_units(**frames, policy=policy).hash
    for parts in (5, 7, 11):
        assert count_in_parts(connection, frames, policy, parts).hash == whole


def a_long_history(cases=400, every=25):
    """Return a history in which v1 agrees but for each `every`-th case, and v2 is often silent."""
    rows = ([], [], [], [])
    for number in range(cases):
        key, hour = f"k{number}", number / 4
        label = "bear" if number % 3 else "fox"
        rows[0].append((key, "north" if number % 2 else "south", at(hour), ""))
        rows[1].append((key, "v1", "none" if number % every == every - 1 else label, at(hour)))
        if number % 5:
            rows[1].append((key, "v2", label, at(hour)))
        rows[2].append((key, f"r{number % 3}", label, at(hour + 0.5), "blind"))
    return rows


@pytest.mark.slow
def test_counts_are_those_of_a_replay(tmp_path, connection):
    policy, history = read_rules(), a_long_history()
    request = write_history(tmp_path, history)
    replayed = replay_history(request, policy)
    numbered = number_units(replayed.history, policy)
    theirs = merge_counts([count_classes(numbered.list_units(), request, policy)])
    counts = count_in_parts(connection, build_frames(history), policy, 5)
    assert counts.frame.equals(theirs)
    assert counts.facts.used == {"cases": 400, "predictions": 720, "decisions": 400, "outcomes": 0}


def replay_history(request, policy):
    return replay_records(request, policy, read_request_records(request, policy))


@pytest.mark.parametrize("unit", [pytest.param("case", marks=pytest.mark.slow), "spans"])
def test_the_ledger_of_counts_is_that_of_their_records(tmp_path, connection, unit):
    policy, history = read_rules(unit), a_long_history()
    replayed = replay_history(write_history(tmp_path, history), policy)
    counts = count_in_parts(connection, build_frames(history), policy, 4)
    counts.write(tmp_path / "counts.parquet")
    again = replay_counts(read_counts(tmp_path / "counts.parquet", policy, ReplayOptions()), policy)
    ledger = format_ledger(again, bytes(32))
    assert ledger == format_ledger(replayed.result, bytes(32))
    assert "supervised" in ledger  # it widens, so that equality says something


def test_pairs_of_counts_are_those_of_the_units_of_their_records(tmp_path):
    policy, history = read_rules(), a_long_history(150)
    units = replay_history(write_history(tmp_path, history), policy).units
    both_sides = units.filter(
        (pl.col("track") == "gate") & pl.col("excluded").is_null() & (pl.col("decided") != "")
    )
    keys = ("version", "lever", "site", "window", "decided", "predicted")
    expected = Counter(row for row in both_sides.select(keys).iter_rows() if row[-1] not in SILENT)
    pairs = count_units(**build_frames(history), policy=policy).count_pairs()
    rows = [*pairs.iter_rows()]
    assert {row[:-1]: row[-1] for row in rows} == expected
    assert [row[-1] for row in rows] == sorted(expected.values(), reverse=True)
    lines = [*describe_pairs(pairs)]
    v1 = {row: n for row, n in expected.items() if row[0] == "v1"}
    agreed = sum(n for row, n in v1.items() if row[-2] == row[-1])
    assert 0 < agreed < sum(v1.values())
    assert lines[0].startswith(f"v1 · alarm: {agreed} of {sum(v1.values())} units agree (")
    assert lines[1:3] == ["  human bear, model none: 4", "  human fox, model none: 2"]


def test_counts_of_another_policy_or_salt_are_refused(tmp_path):
    policy, path = read_rules(), tmp_path / "counts.parquet"
    count_units(**build_frames(a_long_history(60)), policy=policy).write(path)
    for rules, options, what in (
        (read_rules("spans"), ReplayOptions(), "another policy"),
        (policy, ReplayOptions(b"1"), "another salt"),
    ):
        with pytest.raises(LakeError, match=what):
            read_counts(path, rules, options)


def test_edited_counts_are_refused(tmp_path):
    policy, path = read_rules(), tmp_path / "counts.parquet"
    counts = count_units(**build_frames(a_long_history(60)), policy=policy)
    counts.write(path)
    about = pl.read_parquet_metadata(path)
    better = counts.frame.with_columns(decided="predicted")
    better.write_parquet(path, metadata={"rollout counts": about["rollout counts"]})
    with pytest.raises(LakeError, match="was changed after it was counted"):
        read_counts(path, policy, ReplayOptions())
    better.write_parquet(path)
    with pytest.raises(LakeError, match="holds no counts"):
        read_counts(path, policy, ReplayOptions())


def test_counts_whose_account_of_rows_was_edited_are_refused(tmp_path):
    policy, path = read_rules(), tmp_path / "counts.parquet"
    counts = count_units(**build_frames(a_long_history(60)), policy=policy)
    counts.write(path)
    account = json.loads(pl.read_parquet_metadata(path)[FORM]) | {"unplaced": 7}
    counts.frame.write_parquet(path, metadata={FORM: json.dumps(account)})
    with pytest.raises(LakeError, match="was changed after it was counted"):
        read_counts(path, policy, ReplayOptions())


@pytest.mark.parametrize(
    ("guard", "read"),
    [
        ("{measure: harm, at_most: 0, then: shadow}", "guard harm"),
        ("{measure: heartbeat, at_most: 2h, then: suspend}", "guard heartbeat"),
    ],
)
def test_guards_that_read_more_than_units_are_refused(guard, read):
    policy = read_rules(more=f"guards:\n  - {guard}\n")
    counts = count_units(**build_frames(a_long_history(60)), policy=policy)
    with pytest.raises(LakeError, match=read):
        replay_counts(counts, policy)


def test_two_engines_at_once_are_refused(connection):
    frames = build_frames(a_long_history(8))
    mixed = frames | {"decisions": put(connection, frames)["decisions"]}
    with pytest.raises(LakeError, match="duckdb and polars"):
        count_units(**mixed, policy=read_rules())
    with pytest.raises(LakeError, match="a table is of list"):
        count_units(**frames | {"cases": []}, policy=read_rules())


@pytest.mark.slow
def test_sides_that_agree_in_all_parts_are_asked_for(connection):
    frames = build_frames(a_long_history(80, every=1000))
    with pytest.raises(OpenQuestionsError, match="--equal-sides"):
        count_in_parts(connection, frames, read_rules(), 3)


@pytest.mark.slow
def test_a_reviewer_with_the_name_of_a_version_of_another_part_is_no_human(connection):
    history = a_long_history(60)
    history[1].append(("k3", "bot", "bear", at(0.75)))
    history[2].extend((f"k{n}", "bot", "bear", at(n / 4), "blind") for n in range(30))
    frames = build_frames(history)
    whole = count_units(**frames, policy=read_rules())
    assert whole.facts.rejected["decisions: model-reviewer"] == 30
    parts = count_in_parts(connection, frames, read_rules(), 6)
    assert "bot" not in parts.frame["reviewer"]
    assert parts.hash == whole.hash


@pytest.mark.slow
def test_predictions_after_their_decisions_in_all_parts_are_asked_for(connection):
    frames = build_frames(a_long_history(80))
    late = pl.lit(at(90 * 24)).alias("predicted_at")
    frames["predictions"] = frames["predictions"].with_columns(late)
    with pytest.raises(OpenQuestionsError, match="--backtest"):
        count_in_parts(connection, frames, read_rules(), 6)


def test_progress_ends_with_the_last_part(connection):
    steps = []
    request = ReplayRequest(None, RecordPaths(Path("p"), Path("d")))
    tables = put(connection, build_frames(a_long_history(40)))
    tables = {RecordKind(name): table for name, table in tables.items()}
    count_tables(request, read_rules(), tables, parts=2, progress=lambda *step: steps.append(step))
    assert steps[:2] == [("Bringing units together", n, 1) for n in (0, 1)]
    assert steps[2:5] == [("Counting units", n, 2) for n in (0, 1, 2)]


LATER = [3 + number / 4 for number in range(24)]


@pytest.mark.slow
def test_one_file_has_the_receipts_of_cases_though_a_part_lacks_them(connection):
    """Where the file of cases says when any came, that of predictions says it of no case."""
    frames = build_frames(a_long_history(24))
    cases = frames["cases"].with_columns(received_at=pl.lit(None, pl.String))
    first = pl.col("case_key") == "k0"
    after_decision = pl.lit(at(3))
    cases = cases.with_columns(received_at=pl.when(first).then(after_decision))
    later = frames["cases"].select("case_key", received_at=pl.Series(map(at, LATER)))
    frames |= {"cases": cases, "predictions": frames["predictions"].join(later, on="case_key")}
    whole = count_units(**frames, policy=read_rules())
    bare = {k: f.drop("received_at", strict=False) for k, f in frames.items()}
    assert count_units(**bare, policy=read_rules()).hash != whole.hash  # receipts count
    assert count_in_parts(connection, frames, read_rules(), 6).hash == whole.hash


@pytest.mark.slow
def test_the_first_row_with_a_site_is_the_case(connection):
    """What a row without one says of its episode is of no case."""
    history = a_long_history(24)
    history[0].extend((f"k{n}", "", at(n / 4), f"e{n % 5}") for n in range(24))
    frames = build_frames(history)
    frames["cases"] = frames["cases"].reverse()
    whole = count_units(**frames, policy=read_rules("spans"))
    assert count_in_parts(connection, frames, read_rules("spans"), 5).hash == whole.hash


@pytest.mark.slow
def test_a_case_has_the_episode_that_any_file_names_first(connection):
    """The file of cases names none, so that of predictions counts."""
    frames = build_frames(a_long_history(24))
    episode = pl.lit("e") + (pl.int_range(pl.len()) // 8).cast(pl.String)
    frames["cases"] = frames["cases"].with_columns(episode=pl.lit(" "))
    keys = frames["predictions"].select("case_key").unique(maintain_order=True)
    episodes = keys.with_columns(episode=episode)
    frames["predictions"] = frames["predictions"].join(episodes, on="case_key")
    whole = count_units(**frames, policy=read_rules("named"))
    assert count_in_parts(connection, frames, read_rules("named"), 5).hash == whole.hash


def test_columns_that_an_engine_would_mix_up_are_refused(connection):
    frames = build_frames(a_long_history(8))
    frames["cases"] = frames["cases"].with_columns(rollout_row=pl.lit("x"))
    with pytest.raises(LakeError, match="rename the columns rollout_row"):
        count_in_parts(connection, frames, read_rules(), 2)


@pytest.mark.slow
def test_a_version_of_two_contents_is_refused(connection):
    frames = build_frames(a_long_history(2))
    content = pl.when(pl.col("case_key") == "k0").then(pl.lit("a" * 64)).otherwise(pl.lit("b" * 64))
    frames["predictions"] = frames["predictions"].with_columns(content=content)
    with pytest.raises(LakeError, match="v1: several contents"):
        count_in_parts(connection, frames, read_rules(), 8)


def test_versions_of_one_content_need_one_name(connection):
    frames = build_frames(a_long_history(8))
    own = frames["predictions"].filter(pl.col("model_version") == "v1")
    both = pl.concat([own, own.with_columns(model_version=pl.lit("v2"))])
    frames["predictions"] = both.with_columns(content=pl.lit("a" * 64))
    with pytest.raises(LakeError, match="by their content, v2 is v1"):
        count_in_parts(connection, frames, read_rules(), 2)


def test_a_history_has_at_least_one_part(connection):
    with pytest.raises(LakeError, match="parts=-1: give 1 or more"):
        count_in_parts(connection, build_frames(a_long_history(8)), read_rules(), -1)


def test_without_predictions_nothing_is_counted():
    frames = build_frames(a_long_history(8)) | {"predictions": None}
    with pytest.raises(LakeError, match="no predictions; give both"):
        count_units(**frames, policy=read_rules())
