"""Two files and a policy: read, placed, counted, decided."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from polars.testing import assert_frame_equal

from rollout.engine.events import VersionRetired
from rollout.engine.evidence import case_placement
from rollout.engine.evidence.case_placement import find_first_predictions, place_cases
from rollout.engine.files.files import RecordPaths
from rollout.engine.files.mapped_rows import RecordError
from rollout.engine.files.questions import FileChoices
from rollout.engine.slots.engine import VersionsAtOnceError
from rollout.engine.words.evidence_text import VouchedUnits
from rollout.features.replay.replay import (
    NothingToReplayError,
    build_replay_command,
    build_replay_inputs,
    replay_files,
)
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.pages.findings import list_data_findings
from rollout.features.reports.pages.summary import describe_report, describe_results
from tests.engine.evidence.histories import (
    SALT,
    a_policy,
    cases,
    decisions,
    hour,
    predictions,
    records,
)

POLICY = """
rollout: parcels
timezone: Europe/Vienna
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a, {id: ramp-b, timezone: Asia/Tokyo}]
evidence: {unit: case, outside: blind, grace: 1h}
gates:
  - to: supervised
    require: [{measure: agreement, at_least: 80%}]
    minimum: {units: 10, days: 1, reviewers: 1}
"""


def an_order(folder, said, given, **more):
    """Write the files and return the order to replay them."""
    (folder / "policy.yaml").write_text(POLICY, encoding="utf-8")
    for name, rows in (("predictions", said), ("decisions", given)):
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    sources = RecordPaths(folder / "predictions.csv", folder / "decisions.csv")
    equal = FileChoices(equal_sides=True)
    return ReplayRequest(policy=folder / "policy.yaml", sources=sources, choices=equal, **more)


def rows(count, site="ramp-a"):
    times = [f"2025-03-{3 + number // 10:02}T1{number % 10}:00:00" for number in range(count)]
    said = ["case_key,site,occurred_at,model_version,label"]
    said += [f"p{n},{site},{at},v1,sound" for n, at in enumerate(times)]
    given = ["case_key,reviewer,label,decided_at"]
    given += [f"p{n},ana,sound,{at[:-5]}30:00" for n, at in enumerate(times)]
    return said, given


def test_two_files_and_a_policy_give_a_ledger(tmp_path):
    done = replay_files(an_order(tmp_path, *rows(40)))
    kinds = [type(event).__name__ for event in done.result.events]
    assert kinds[:3] == ["RolloutCreated", "PolicyApplied", "VersionFirstUsed"]
    assert "Widened" in kinds
    assert done.units.height == 40


@pytest.mark.slow
def test_cases_resolved_in_parts_are_counted_as_in_one(tmp_path, monkeypatch):
    order = an_order(tmp_path, *rows(40))
    whole = replay_files(order)
    monkeypatch.setattr(case_placement, "CASES_AT_ONCE", 7)
    in_parts = replay_files(order)
    assert in_parts.result.events == whole.result.events
    assert_frame_equal(in_parts.units, whole.units, check_row_order=False)


def test_times_without_offset_are_in_the_sites_zone(tmp_path):
    done = replay_files(an_order(tmp_path, *rows(1, site="ramp-b")))
    assert done.history.cases["occurred_at"][0] == datetime(2025, 3, 3, 1, tzinfo=UTC)


def test_columns_may_be_mapped(tmp_path):
    said, given = rows(3)
    said[0] = said[0].replace("case_key", "image").replace("model_version", "net")
    mapped = ("predictions.case_key=image", "predictions.model_version=net")
    assert replay_files(
        an_order(tmp_path, said, given, column_mappings=mapped)
    ).result.scope.versions


def test_records_of_other_sites_leave_nothing_to_replay_and_the_error_says_so(tmp_path):
    order = an_order(tmp_path, *rows(3, site="elsewhere"))
    with pytest.raises(NothingToReplayError, match=r"(?s)3 cases: unknown site.*compare `sites:`"):
        replay_files(order)


def test_predictions_without_a_case_leave_nothing_to_replay(tmp_path):
    order = an_order(tmp_path, rows(0)[0], rows(0)[1])
    with pytest.raises(NothingToReplayError, match="no prediction can be evidence"):
        replay_files(order)


@pytest.mark.slow
def test_strict_stops_at_the_first_row_that_can_not_be_read(tmp_path):
    said, given = rows(3)
    said[2] = said[2].replace("2025-03-03", "2025-02-30")
    assert replay_files(an_order(tmp_path, said, given)).history.excluded["no time"] == 1
    with pytest.raises(RecordError, match=r"predictions\.csv.*3"):
        replay_files(an_order(tmp_path, said, given, strict=True))


def test_cases_that_a_version_was_trained_on_are_no_evidence(tmp_path):
    until = {"v1": datetime(2025, 3, 5, tzinfo=UTC)}
    done = replay_files(an_order(tmp_path, *rows(40), trained_until=until))
    assert set(done.units["excluded"].drop_nulls()) == {"trained on"}
    assert done.units["excluded"].null_count() == 20


def test_a_version_is_first_seen_when_its_first_answer_came():
    history = records(
        cases(("a", 5), ("b", 1)),
        predictions(
            ("a", "bear"), ("b", "fox", {"at": 7}), ("b", "fox", {"version": "v2", "at": 2})
        ),
        decisions(),
    )
    seen = find_first_predictions(history, place_cases(history, a_policy(), SALT).cases)
    assert seen == {"v1": hour(5), "v2": hour(2)}
    assert list(seen) == ["v2", "v1"]


def test_progress_is_told_to_the_end(tmp_path):
    told = []
    replay_files(
        an_order(tmp_path, *rows(12)), lambda what, done, of: told.append((what, done, of))
    )
    deciding = [(done, of) for what, done, of in told if what == "deciding"]
    assert all(0 < done <= of for done, of in deciding)
    assert deciding[-1][0] == deciding[-1][1]
    assert {what for what, _, _ in told} >= {"deciding", "predictions.csv", "decisions.csv"}


FIRST, OTHER = "ab" * 32, "cd" * 32


def test_a_name_with_a_known_content_continues_its_version(tmp_path):
    said, given = rows(30)
    said = [row.replace(",v1,", ",v1b,") if n > 15 else row for n, row in enumerate(said)]
    until = {"v1b": datetime(2025, 3, 3, 17, tzinfo=UTC)}
    order = an_order(tmp_path, said, given, trained_until=until)
    apart = replay_files(order)
    assert list(apart.result.scope.versions) == ["v1", "v1b"]
    text = POLICY + f"versions: [{{id: v1b, content: {FIRST}}}]\n"
    order.policy.write_text(text, encoding="utf-8")
    done = replay_files(replace(order, contents={"v1": FIRST}))
    assert (done.result.scope.aliases, list(done.result.scope.versions)) == ({"v1b": "v1"}, ["v1"])
    assert set(done.units["version"]) == {"v1"}
    is_excluded = done.units["excluded"].drop_nulls()
    assert is_excluded.to_list() == ["trained on"] * 9, "an end holds under all names"


@pytest.mark.slow
def test_predictions_that_come_after_the_decisions_open_nothing_until_their_sender_is_vouched_for(
    tmp_path,
):
    said, given = rows(40)
    sent_at = [line.split(",")[2].replace(":00:00", ":45:00") for line in said[1:]]
    late = [f"{said[0]},predicted_at"] + [
        f"{line},{at}" for line, at in zip(said[1:], sent_at, strict=True)
    ]
    order = an_order(tmp_path, late, given)
    facts = compute_report_facts(build_replay_inputs(replay_files(order)))
    assert {cell.stage for cell in facts.stages} == {"shadow"}
    (told,) = [line for line in describe_results(facts) if "vouched: [" in line]
    assert "not counted: predicted after the decision (40). It looks like" in told
    vouched = "grace: 1h, sources: {vouched: [{account: box, within: 50m}]}"
    text = POLICY.replace("grace: 1h", vouched)
    order.policy.write_text(text, encoding="utf-8")
    replayed = replay_files(order)
    assert list_changes(replayed) == ["Widened"]
    facts = compute_report_facts(build_replay_inputs(replayed))
    assert facts.sources.vouched == VouchedUnits("box", 40, 40, 3000)
    said = "40 of 40 units from box, which could have seen the answer (vouched for, within 50m)."
    assert said in describe_report(facts)
    assert said in [finding.text for finding in list_data_findings(facts)]


def list_changes(replayed):
    """Return the kinds of the events that widened or narrowed."""
    kinds = [type(event).__name__ for event in replayed.result.events]
    return [kind for kind in kinds if kind in {"Widened", "Narrowed"}]


@pytest.mark.parametrize(
    ("vouched", "changes"),
    [("sources: {vouched: [{account: box, within: 23h}]}", ["Widened", "Narrowed"]), ("", [])],
)
def test_a_batch_widens_once_vouched_for_and_narrows_where_its_answers_would_be_acted_on(
    tmp_path, vouched, changes
):
    said, given = rows(250)
    nights = [line.split(",")[2][:10] + "T23:00:00" for line in said[1:]]
    at_night = [f"{line},{at}" for line, at in zip(said[1:], nights, strict=True)]
    order = an_order(tmp_path, [f"{said[0]},predicted_at", *at_night], given)
    text = POLICY.replace("grace: 1h", f"grace: 1d, {vouched}")
    order.policy.write_text(text, encoding="utf-8")
    assert list_changes(replay_files(order))[:2] == changes


@pytest.mark.parametrize(
    ("contents", "problem"),
    [
        ({"v2": FIRST}, "--content v2: no prediction is by v2; there are v1"),
        ({"v1": OTHER}, "--content: v1 has the content cdcdcdcdcdcd…, and the policy says abab"),
    ],
)
def test_a_content_of_no_version_or_not_the_policys_is_an_error(tmp_path, contents, problem):
    order = an_order(tmp_path, *rows(1), contents=contents)
    text = POLICY + f"versions: [{{id: v1, content: {FIRST}}}]\n"
    order.policy.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=problem):
        replay_files(order)


def test_the_command_of_a_report_has_the_contents(tmp_path):
    order = an_order(tmp_path, *rows(1), contents={"v1": FIRST})
    assert f"--content v1={FIRST}" in build_replay_command(order, order.policy)


def daily_releases(count, cases_each=10):
    """Return predictions of versions that follow each other, a day each, and decisions."""
    said, given = rows(count * cases_each)
    for number in range(count):
        for place in range(cases_each):
            line = 1 + number * cases_each + place
            said[line] = said[line].replace(",v1,", f",v{number:02},")
    return said, given


@pytest.mark.slow
def test_versions_after_one_another_retire_by_their_last_record(tmp_path):
    done = replay_files(an_order(tmp_path, *daily_releases(25)))
    retired = [event for event in done.result.events if isinstance(event, VersionRetired)]
    assert [event.version for event in retired] == [f"v{number:02}" for number in range(25)]
    assert {event.reason for event in retired} == {"its last record"}
    assert f"{retired[0].at:%d %H:%M}" == "03 18:00"  # 19:00 in Vienna, the last case of that day
    few = replay_files(an_order(tmp_path, *daily_releases(20)))
    assert not any(isinstance(event, VersionRetired) for event in few.result.events)


def test_too_many_versions_at_once_are_refused_by_name(tmp_path):
    said, given = rows(10)
    said += [line.replace(",v1,", f",w{n},") for n in range(20) for line in said[1:11]]
    with pytest.raises(VersionsAtOnceError, match="21 versions were in use at 2025-03-03") as error:
        replay_files(an_order(tmp_path, said, given))
    assert all(f"w{n}" in str(error.value) for n in range(20))
