"""The mail room's shipped records are what its generator makes, and what the story needs."""

import csv
import gzip
import json
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "mail-room"
RECORDS = FOLDER / "records"
TABLES = ("cases", "predictions", "decisions", "outcomes", "pictures", "digits")
DIGITS = set("0123456789")
ABOUT = json.loads((RECORDS / "about.json").read_text(encoding="utf-8"))


def unpacked(path):
    return gzip.decompress(path.read_bytes())


def rows(name):
    return list(csv.DictReader(unpacked(RECORDS / f"{name}.csv.gz").decode().splitlines()))


@pytest.fixture(scope="module")
def cases():
    return rows("cases")


@pytest.fixture(scope="module")
def decisions():
    return rows("decisions")


@pytest.fixture(scope="module")
def predictions():
    return rows("predictions")


@pytest.fixture(scope="module")
def truth():
    return {row["case_key"]: row["label"] for row in rows("outcomes")}


def local(case):
    return datetime.fromisoformat(case["occurred_at"])


def share(hits):
    hits = list(hits)
    return sum(hits) / len(hits)


@pytest.mark.simulation
def test_the_examples_in_the_generators_docstrings_hold():
    modules = [str(FOLDER / f"{name}.py") for name in ("chance", "images", "offices", "clerks")]
    subprocess.run([sys.executable, "-m", "doctest", *modules], check=True)


@pytest.mark.simulation
def test_no_image_is_both_learnt_from_and_scanned(cases, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import images  # noqa: PLC0415 - a module beside the script, importable from here on only

    digits = images.load(ABOUT["seed"])
    learnt = {*digits.trained.tolist(), *digits.new_form_set.tolist()}
    scanned = {int(case["image"]) for case in cases}
    assert (len(learnt), len(digits.pool)) == (1100, 697)
    assert scanned <= set(digits.pool.tolist())
    assert not scanned & learnt


@pytest.mark.simulation
def test_an_image_of_a_letter_shows_the_digit_that_was_true(cases, truth, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import images  # noqa: PLC0415 - as above

    labels = images.load(ABOUT["seed"]).labels
    assert all(str(labels[int(case["image"])]) == truth[case["case_key"]] for case in cases)


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["-3", "4294967296"])
def test_a_seed_that_is_none_is_refused_by_name(seed, tmp_path):
    script = [sys.executable, str(FOLDER / "generate.py"), f"--seed={seed}", f"--out={tmp_path}"]
    said = subprocess.run(script, check=False, capture_output=True, text=True)
    assert said.returncode == 2
    assert f"{seed} is no seed" in said.stderr


@pytest.mark.parametrize("name", TABLES)
def test_a_packed_table_carries_no_time_stamp(name):
    assert (RECORDS / f"{name}.csv.gz").read_bytes()[4:8] == bytes(4)


def test_there_are_as_many_letters_and_episodes_as_the_story_says(cases):
    assert 36_000 < len(cases) == len({case["case_key"] for case in cases}) < 38_000
    assert 18_300 < len({case["episode"] for case in cases}) < 18_800
    assert (ABOUT["letters"], ABOUT["episodes"]) == (
        len(cases),
        len({case["episode"] for case in cases}),
    )


def test_six_of_ten_letters_lie_in_batches_of_one_digit_twenty_seconds_apart(cases, truth):
    episodes = defaultdict(list)
    for case in cases:
        episodes[case["episode"]].append(case)
    batches = [batch for batch in episodes.values() if len(batch) > 1]
    assert sum(map(len, batches)) / len(cases) == pytest.approx(0.6, abs=0.015)
    assert max(map(len, batches)) <= 30
    for batch in batches:
        assert len({truth[case["case_key"]] for case in batch}) == 1
        steps = {local(b) - local(a) for a, b in pairwise(batch)}
        assert steps == {timedelta(seconds=20)}


def test_labels_are_digits_written_as_text_and_all_ten_are_there(predictions, decisions, truth):
    assert {row["label"] for row in predictions} == DIGITS
    assert {row["label"] for row in decisions} == DIGITS | {""}
    assert set(truth.values()) == DIGITS


def test_a_verdict_without_a_label_is_unsure_and_only_that(decisions):
    assert {(row["label"] == "", row["unsure"]) for row in decisions} == {
        (True, "true"),
        (False, "false"),
    }


def test_few_letters_have_no_verdict(cases, decisions):
    answered = {row["case_key"] for row in decisions if row["label"]}
    missing = len(cases) - len(answered)
    assert missing == ABOUT["letters_without_decision"]
    assert 0.012 < missing / len(cases) < 0.018


def test_six_in_a_hundred_letters_go_to_a_second_clerk_after_the_first(cases, decisions):
    seats = defaultdict(list)
    for row in decisions:
        seats[row["case_key"]].append((row["decided_at"], row["task_number"], row["reviewer"]))
    second = [given for given in seats.values() if any(seat == "2" for _, seat, _ in given)]
    assert len(second) / len(cases) == pytest.approx(0.06, abs=0.004)
    assert {seat for given in seats.values() for _, seat, _ in given} == {"1", "2"}
    for given in seats.values():
        assert [seat for _, seat, _ in sorted(given)] == sorted(seat for _, seat, _ in given)
        assert len({reviewer for *_, reviewer in given}) == len(given)


def test_people_agree_with_each_other_in_nearly_98_of_100_letters(decisions):
    seats = defaultdict(dict)
    for row in decisions:
        seats[row["case_key"]][row["task_number"]] = row["label"]
    both = [it for it in seats.values() if it.get("1") and it.get("2")]
    assert share(it["1"] == it["2"] for it in both) == pytest.approx(0.978, abs=0.008)


def test_the_clerk_hob_2_slips_most(decisions, truth):
    wrong, judged = Counter(), Counter()
    for row in decisions:
        if row["label"]:
            judged[row["reviewer"]] += 1
            wrong[row["reviewer"]] += row["label"] != truth[row["case_key"]]
    rates = {reviewer: wrong[reviewer] / judged[reviewer] for reviewer in judged}
    assert len(rates) == 24
    assert max(rates, key=rates.get) == "hob-2"
    assert rates["hob-2"] == pytest.approx(0.05, abs=0.01)


def test_sundays_by_day_are_nearly_empty(cases):
    by_day = Counter(local(c).weekday() for c in cases if 6 <= local(c).hour < 18)
    assert by_day[6] < by_day[5] / 4
    assert by_day[5] < by_day[0]


def test_only_lisbon_by_day_has_the_new_form_and_only_since_20_october(cases):
    since = datetime.fromisoformat("2025-10-20T06:00:00+01:00")
    new = [case for case in cases if case["form"] == "new"]
    assert {case["site"] for case in new} == {"lisbon"}
    assert min(local(case) for case in new) >= since
    late = timedelta(seconds=20 * 30)  # a batch that began before 18:00
    assert all(6 <= (local(case) - late).hour < 18 or local(case).hour == 6 for case in new)
    by_day = [
        case["form"] == "new"
        for case in cases
        if case["site"] == "lisbon"
        and local(case) >= since
        and 6 <= local(case).hour < 18
        and local(case).weekday() < 6
    ]
    assert share(by_day) == pytest.approx(0.95, abs=0.02)


def test_only_halifax_by_night_is_scanned_badly_and_not_on_mondays(cases):
    worn = [case for case in cases if case["scanner"] == "worn"]
    assert {case["site"] for case in worn} == {"halifax"}
    began = [local(case) - timedelta(hours=12) for case in worn]
    assert {at.weekday() for at in began} == {1, 2, 3, 4, 5, 6}
    assert all(6 <= at.hour < 18 for at in began)


def test_each_office_keeps_its_own_offset_and_changes_it_on_its_own_night(cases):
    changes = {
        "lisbon": ("2025-10-26T01:00:00+00:00", "+01:00", "+00:00"),
        "halifax": ("2025-11-02T05:00:00+00:00", "-03:00", "-04:00"),
        "hobart": ("2025-10-04T16:00:00+00:00", "+10:00", "+11:00"),
        "nagoya": ("2025-10-26T01:00:00+00:00", "+09:00", "+09:00"),
    }
    for case in cases:
        instant, before, after = changes[case["site"]]
        here = before if local(case) < datetime.fromisoformat(instant) else after
        assert case["occurred_at"][-6:] == here


def test_times_are_whole_seconds_and_lie_in_the_six_weeks(cases):
    first, end = "2025-09-29T00:00:00", "2025-11-10T00:00:00"
    assert all(first <= case["occurred_at"][:19] < end for case in cases)
    assert all(len(case["occurred_at"]) == 25 for case in cases)


def test_v2_reads_every_office_from_24_october_on(cases, predictions):
    occurred = {case["case_key"]: (case["site"], local(case)) for case in cases}
    read = [occurred[row["case_key"]] for row in predictions if row["model_version"] == "v2"]
    since = datetime.fromisoformat("2025-10-24T08:00:00+00:00")
    assert {site for site, _ in read} == {"lisbon", "halifax", "hobart", "nagoya"}
    assert len(read) == sum(at >= since for _, at in occurred.values())
    assert min(at for _, at in read) >= since


def test_v1_reads_clean_scans_well_and_the_new_form_as_badly_as_was_measured(
    cases, predictions, truth
):
    read = {row["case_key"]: row["label"] for row in predictions if row["model_version"] == "v1"}
    right = {key: label == truth[key] for key, label in read.items()}
    old = [c["case_key"] for c in cases if (c["scanner"], c["form"]) == ("clean", "old")]
    new = [c["case_key"] for c in cases if c["form"] == "new"]
    assert len(read) == len(cases)
    assert 0.982 <= share(right[key] for key in old) <= 0.988
    assert 0.50 <= share(right[key] for key in new) <= 0.585
    assert ABOUT["percent_right"]["v1"]["new_form"] == round(100 * share(right[k] for k in new), 1)


def test_every_letter_that_a_version_read_otherwise_than_the_first_clerk_has_its_picture(
    predictions, decisions
):
    first = {}
    for row in decisions:
        if row["label"]:
            first.setdefault(row["case_key"], row["label"])
    divergent = {
        row["case_key"]
        for row in predictions
        if first.get(row["case_key"], row["label"]) != row["label"]
    }
    drawn = {row["case_key"]: row["pixels"] for row in rows("pictures")}
    assert drawn.keys() == divergent
    assert all(len(pixels) == 64 and int(pixels, 16) > 0 for pixels in drawn.values())
