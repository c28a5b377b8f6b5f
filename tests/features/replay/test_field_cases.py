"""Files in the shape that users have are read right, or refused with the true cause.

The right values are those of ../shared/data/field-cases/README.md.
"""

from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.engine.files.files import RecordPaths
from rollout.features.replay.requests import ReplayRequest, read_request_records
from rollout.kernel.policy_files.reader import parse_policy
from tests.docs.pages import ROOT

CASES = ROOT.parent / "shared/data/field-cases"

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/data/field-cases is absent")


def run(*words, code=0):
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == code, done.output
    return done


def init(case, *options, decisions="decisions.csv", code=0):
    paths = (CASES / case / "predictions.csv", CASES / case / decisions)
    return run("init", *paths, "--exposure", "blind", *options, code=code)


@pytest.mark.slow
def test_the_text_nan_is_no_label_and_is_named_with_its_count():
    done = init("01-nan-as-text")
    assert done.stderr.count("  read as missing, in label: 'nan' (40)") == 2
    assert "'none' (56) is a label; if it means no answer: --unsure none" in done.stderr
    assert sorted(parse_policy(done.stdout).levers[0].labels) == ["bear", "deer", "none"]


def test_the_text_nan_is_no_answer_of_a_pair():
    text = run("compare", CASES / "01-nan-as-text/pairs.csv").output
    assert "Read as missing: 'nan' (80)" in text
    assert (
        "where the model has an answer too, 135 of 168 pairs agree (80.4\xa0%, kappa 0.702)" in text
    )


@pytest.mark.slow
def test_a_replay_names_placeholders_and_lets_the_policy_decide(tmp_path):
    (tmp_path / "policy.yaml").write_text(init("01-nan-as-text").stdout, encoding="utf-8")
    case = CASES / "01-nan-as-text"
    files = ("--predictions", case / "predictions.csv", "--decisions", case / "decisions.csv")
    text = run("replay", tmp_path / "policy.yaml", *files).output
    assert text.count("40 placeholder") == 2
    assert "135 agree" in text
    listed = (tmp_path / "policy.yaml").read_text("utf-8").replace("none]", "none, nan]")
    (tmp_path / "policy.yaml").write_text(listed, encoding="utf-8")
    text = run("replay", tmp_path / "policy.yaml", *files).output
    assert "placeholder" not in text
    assert "143 agree" in text


IMAGES = CASES / "11-one-file-of-both/images.csv"
COLUMNS = {
    "predictions": "case_key=image_id site=location occurred_at=timestamp label=common_name"
    " confidence=cv_confidence model_version=identified_by",
    "decisions": "case_key=image_id label=common_name reviewer=identified_by",
}
MAPS = [f"--map={kind}.{entry}" for kind, text in COLUMNS.items() for entry in text.split()]
MODEL, HUMANS = "identified_by=Computer vision", "identified_by!=Computer vision"
WHERES = ("--predictions-where", MODEL, "--decisions-where", HUMANS)


def test_one_file_for_both_sides_is_refused_with_the_rows_that_seem_to_be_each():
    done = run("init", IMAGES, IMAGES, *MAPS, code=2)
    assert done.stdout == ""
    assert f"the predictions seem to be its 240 rows with {MODEL}" in done.stderr
    assert f"decide with --predictions-where '{MODEL}'" in done.stderr
    assert f"decide with --decisions-where '{HUMANS}'" in done.stderr


def test_a_copy_of_the_file_is_the_same_file(tmp_path):
    (tmp_path / "other.csv").write_bytes(IMAGES.read_bytes())
    done = run("init", IMAGES, tmp_path / "other.csv", *MAPS, code=2)
    assert "is given for both sides" in done.stderr


@pytest.mark.slow
def test_the_rows_of_one_file_are_chosen_and_the_policy_keeps_the_choice(tmp_path):
    done = run("init", IMAGES, IMAGES, *MAPS, *WHERES, "--exposure=blind")
    assert "240 of 480 rows by --decisions-where" in done.stderr
    assert "agreement: 78.3%    # of 240 pairs" in done.stdout
    (tmp_path / "policy.yaml").write_text(done.stdout, encoding="utf-8")
    files = ("--predictions", IMAGES, "--decisions", IMAGES)
    text = run("replay", tmp_path / "policy.yaml", *files).output
    assert "188 agree (78.3" in text
    text = run("replay", tmp_path / "policy.yaml", *files, "--decisions-where=a", code=2).output
    assert "'a' chooses no rows; write COLUMN=TEXT or COLUMN!=TEXT" in text


def test_one_file_without_a_sign_of_the_model_is_refused_in_words(tmp_path):
    text = IMAGES.read_text(encoding="utf-8").replace("Computer vision", "bob")
    rows = [line.split(",") for line in text.splitlines()]
    plain = "\n".join(",".join((*row[:8], *row[9:])) for row in rows)
    (tmp_path / "images.csv").write_text(plain, encoding="utf-8")
    maps = [entry for entry in MAPS if "confidence" not in entry]
    done = run("init", tmp_path / "images.csv", tmp_path / "images.csv", *maps, code=2)
    assert "--predictions-where COLUMN=TEXT --decisions-where COLUMN!=TEXT" in done.stderr
    assert "seem to be" not in done.stderr


def test_a_decision_in_the_name_of_a_version_is_rejected_with_that_reason(tmp_path):
    decisions = IMAGES.read_text(encoding="utf-8")
    (tmp_path / "decisions.csv").write_text(decisions + "4021,,,c0000,,,,,,\n", encoding="utf-8")
    done = run("init", IMAGES, tmp_path / "decisions.csv", *MAPS, "--predictions-where", MODEL)
    assert "model-reviewer 240" in done.stderr
    assert "reviewer Computer vision is the name of a version: a model is no human" in done.stderr
    assert "agreement: 78.3%    # of 240 pairs" in done.stdout


def test_classes_in_two_forms_are_asked_about_and_read_as_the_same():
    done = init("02-classes-in-two-forms", code=2)
    assert "differ in form only: labels '0.0' and '0', '1.0' and '1', '2.0' and '2'" in done.stderr
    assert "decide with --same-form or --no-same-form" in done.stderr
    done = init("02-classes-in-two-forms", "--same-form")
    assert "agreement: 78.7%    # of 225 pairs" in done.stdout
    assert "--same-form --out replay" in done.stderr


def test_classes_in_two_forms_are_never_compared_as_others():
    text = init("02-classes-in-two-forms", "--no-same-form", code=2).stderr
    assert "have 0 of 3 labels in common: humans answer such as '0.0', the model" in text
    pairs = CASES / "02-classes-in-two-forms/pairs.csv"
    assert "decide with --same-form" in run("compare", pairs, code=2).output
    assert "0 of 3 labels in common" in run("compare", pairs, "--no-same-form", code=2).output
    text = run("compare", pairs, "--same-form").output
    assert "177 of 225 pairs agree" in text
    assert "kappa 0.679" in text


@pytest.mark.slow
def test_a_replay_asks_about_forms_by_the_labels_of_the_policy(tmp_path):
    case = CASES / "02-classes-in-two-forms"
    done = init(case.name, "--same-form")
    (tmp_path / "policy.yaml").write_text(done.stdout, encoding="utf-8")
    files = ("--predictions", case / "predictions.csv", "--decisions", case / "decisions.csv")
    text = run("replay", tmp_path / "policy.yaml", *files, code=2).output
    assert "labels '0.0' and '0'" in text
    assert "177 agree" in run("replay", tmp_path / "policy.yaml", *files, "--same-form").output
    run("plan", tmp_path / "policy.yaml", *files, "--same-form")


@pytest.mark.parametrize("decisions", ["decisions.csv", "decisions-with-site.csv"])
def test_a_key_of_two_sites_is_refused_with_both(decisions):
    done = init("05-repeated-file-names", decisions=decisions, code=2)
    assert done.stdout == ""
    assert "'IMG_0000.JPG' stands for cases at two sites, north and harbour" in done.stderr
    assert "as do 120 keys in all: a key is unique in a rollout" in done.stderr


def test_a_clock_that_was_reset_shapes_no_draft_and_is_named():
    done = init("06-clock-reset")
    text = "4 cases occurred in the future or more than five years from the others (median 2026-03"
    assert text in done.stderr
    assert "c0123 (1970-01-01), c0120 (2000-01-01), c0121 (2000-01-01), c0122" in done.stderr
    policy = parse_policy(done.stdout)
    assert policy.expect.units_per_day == pytest.approx(236 / 40 / 2, rel=0.02)
    assert policy.evidence.grace == timedelta(hours=2)
    assert policy.expect.agreement == pytest.approx(188 / 240, abs=0.001)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--timezone", "Europe/Vienna"),
        ("--timezone", "Europe/Vienna", "--date-format", "%Y%m%dT%H%M%SZ"),
    ],
)
def test_the_z_of_a_basic_time_is_utc_in_every_zone(options, tmp_path):
    done = init("10-basic-times", *options)
    (tmp_path / "policy.yaml").write_text(done.stdout, encoding="utf-8")
    case = CASES / "10-basic-times"
    sources = RecordPaths(case / "predictions.csv", case / "decisions.csv")
    policy = parse_policy(done.stdout)
    cases = read_request_records(ReplayRequest(tmp_path / "policy.yaml", sources), policy).cases
    times = dict(cases.select("case_key", "occurred_at").iter_rows())
    assert times["c0000"] == datetime(2026, 3, 2, 6, tzinfo=UTC)
    assert times["c0123"] == datetime(2026, 3, 22, 18, tzinfo=UTC)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "skipped"),
    [
        ("sep-line", ["skipped 1 line, from line 1 on: the separator"]),
        (
            "concatenated",
            [
                "skipped 1 line, from line 122 on: a repeated header",
                "skipped 1 line, from line 243 on: totals",
            ],
        ),
        ("blank-rows", ["skipped 760 lines, from line 242 on: no value"]),
    ],
)
def test_lines_that_are_no_rows_are_counted_and_add_nothing(folder, skipped, tmp_path):
    case = f"17-lines-that-are-no-rows/{folder}"
    done = init(case)
    assert all(line in done.stderr for line in skipped)
    assert "predictions.csv: 240 rows read, 240 used, 0 rejected" in done.stderr
    policy = parse_policy(done.stdout)
    assert [site.id for site in policy.sites] == ["harbour", "north"]
    assert sorted(policy.levers[0].labels) == ["bear", "deer", "none"]
    (tmp_path / "policy.yaml").write_text(done.stdout, encoding="utf-8")
    files = [f"--{kind}={CASES / case / kind}.csv" for kind in ("predictions", "decisions")]
    assert "188 agree (78.3" in run("replay", tmp_path / "policy.yaml", *files).output
