"""A replay of some sources: what counts, what the report says of it, and an unknown source."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.engine.evidence.frames import RecordKind
from rollout.engine.files.parts import UnknownSourceError
from rollout.features.replay.replay import build_replay_command, replay_files
from rollout.features.replay.requests import read_request_records
from rollout.features.reports.pages.html_report import render_html_report
from rollout.features.reports.pages.text_report import render_message_summary, render_text_report
from rollout.kernel.policy_files.reader import load_policy
from tests.engine.slots.facts import compute_replay_facts
from tests.features.replay.test_replay import an_order, rows
from tests.properties import examples


def write_order(tmp_path, **more):
    """Write 30 cases: `desk` decides all, and `camera` the first twelve again as `bot`, wrongly."""
    said, given = rows(30)
    sourced = [given[0] + ",source", *(f"{row},desk" for row in given[1:])]
    invented = [row.replace("ana,sound", "bot,damaged") + ",camera" for row in given[1:13]]
    return an_order(tmp_path, said, [*sourced, *invented], **more)


def load_decisions(replayed):
    frame = replayed.records.decisions
    return set(frame.select("reviewer", "source").iter_rows())


@pytest.mark.slow
def test_without_a_choice_all_sources_count(tmp_path):
    replayed = replay_files(write_order(tmp_path))
    assert load_decisions(replayed) == {("ana", "desk"), ("bot", "camera")}
    assert "--sources" not in render_text_report(compute_replay_facts(replayed))


def test_only_the_chosen_source_counts_and_every_row_is_accounted_for(tmp_path):
    replayed = replay_files(write_order(tmp_path, chosen_sources=("desk",)))
    assert load_decisions(replayed) == {("ana", "desk")}
    count = replayed.records.row_counts[RecordKind.DECISIONS]
    assert (count.rows, count.used, count.rejected) == (42, 30, {"other-source": 12})


def test_a_choice_equals_a_file_without_the_other_rows(tmp_path):
    chosen = replay_files(write_order(tmp_path, chosen_sources=("desk",)))
    said, given_rows = rows(30)
    alone = replay_files(an_order(tmp_path, said, given_rows))
    assert chosen.result.events == alone.result.events
    assert sorted(map(repr, chosen.units.rows())) == sorted(map(repr, alone.units.rows()))


DECISIONS = st.tuples(
    st.integers(0, 3), st.sampled_from(["ana", "bo"]), st.sampled_from(["sound", "damaged"]),
    st.sampled_from(["desk", "camera", "desk 2"]),
)  # fmt: skip


@pytest.mark.slow
@examples(
    given(st.lists(DECISIONS, min_size=1, max_size=12), st.sets(DECISIONS)), fast=15, whole=150
)
def test_any_choice_reads_what_a_file_of_its_rows_alone_would(drawn, more):
    drawn = [*drawn, *more]
    chosen = {drawn[0][3], drawn[-1][3]}
    said = rows(4)[0]
    with TemporaryDirectory() as folder:
        given_rows = ["case_key,reviewer,label,source"]
        given_rows += [f"p{case},{who},{label},{source}" for case, who, label, source in drawn]
        kept = [row for row in given_rows if row.rpartition(",")[2] in {"source", *chosen}]
        frames = []
        for written, names in ((given_rows, tuple(sorted(chosen))), (kept, ())):
            order = an_order(Path(folder), said, written, chosen_sources=names)
            records = read_request_records(order, load_policy(order.policy))
            frames.append(sorted(map(repr, records.decisions.rows())))
            count = records.row_counts[RecordKind.DECISIONS]
            assert count.rows == count.used + sum(count.rejected.values())
    assert frames[0] == frames[1]


def test_a_decision_that_is_left_out_takes_none_away(tmp_path):
    """A reviewer's two answers to a case count for neither, but only within the chosen sources."""
    said, given = rows(12)
    lies = [f"{row.replace('sound', 'damaged')},camera" for row in given[1:]]
    sourced = [given[0] + ",source", *lies, *(f"{row},desk" for row in given[1:])]
    assert replay_files(an_order(tmp_path, said, sourced)).records.decisions.is_empty()
    chosen = replay_files(an_order(tmp_path, said, sourced, chosen_sources=("desk",)))
    assert chosen.records.decisions.height == 12


@pytest.mark.slow
def test_the_report_says_it_at_the_top_and_where_it_tells_how_it_was_made(tmp_path):
    facts = compute_replay_facts(replay_files(write_order(tmp_path, chosen_sources=("desk",))))
    sentence = "Only decisions of desk count in this replay (--sources): 30 of 42 decisions."
    head = render_text_report(facts, 200).splitlines()[:5]
    assert any(sentence in line for line in head)
    page = render_html_report(facts)
    header, body = page.split("</header>")
    assert sentence in header
    assert sentence in body.split("Reproduce this report")[-1]
    assert "Only decisions of desk count" in render_message_summary(facts).split("\n- ")[0]


def test_an_unknown_source_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(UnknownSourceError) as refused:
        replay_files(write_order(tmp_path, chosen_sources=("desk", "desks")))
    assert "no decision is of the source desks" in str(refused.value)
    assert "camera (12), desk (30)" in str(refused.value)


def test_a_file_without_the_column_is_one_source_of_its_name(tmp_path):
    order = an_order(tmp_path, *rows(12), chosen_sources=("decisions.csv",))
    assert load_decisions(replay_files(order)) == {("ana", "decisions.csv")}
    with pytest.raises(UnknownSourceError, match=r"decisions\.csv \(12\)"):
        replay_files(replace(order, chosen_sources=("desk",)))


@pytest.mark.slow
def test_the_command_line_takes_sources_and_names_them_for_a_repetition(tmp_path, snapshot):
    order = write_order(tmp_path)
    files = [str(order.policy), "--predictions", str(order.sources.predictions)]
    files += ["--decisions", str(order.sources.decisions)]
    done = CliRunner().invoke(app, ["replay", *files, "--sources", "desk", "--json"])
    facts = json.loads(done.stdout)
    assert facts["identity"]["command"].count("--sources desk") == 1
    assert facts["sources"] == snapshot
    assert (
        build_replay_command(replace(order, chosen_sources=("desk",)), order.policy).count(
            "--sources"
        )
        == 1
    )
    refused = CliRunner().invoke(app, ["replay", *files, "--sources", "nobody"])
    assert refused.exit_code == 2
    assert "camera (12), desk (30)" in " ".join(refused.output.split())
