"""`rollout init` reports first, asks or refuses what is open, and guesses nothing in silence."""

import json
import shlex
from datetime import timedelta

import polars as pl
import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.kernel.policy_files.reader import parse_policy
from rollout.terminal import remote
from tests.features.policies.messy_files import Variant, write_files

EARLY = timedelta(hours=4)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*options, answers=""):
    command = ["init", "predictions.csv", "decisions.csv", *options]
    return CliRunner().invoke(app, command, input=answers)


def damage(folder, name, count, old, new):
    """Replace a text in the last rows of a file."""
    lines = (folder / name).read_text(encoding="utf-8").splitlines()
    changed = [line.replace(old, new) for line in lines[-count:]]
    text = "\n".join([*lines[:-count], *changed]) + "\n"
    (folder / name).write_text(text, encoding="utf-8")


def test_the_report_comes_first_and_only_the_policy_is_printed(folder):
    write_files(folder, Variant("German", separator=";", decimal=",", date="dots"))
    done = run()
    assert done.exit_code == 0
    assert parse_policy(done.stdout).file_readings["predictions"].decimal == ","
    counts, reading, decisions = done.stderr.splitlines()[:3]
    assert counts == "predictions.csv: 60 rows read, 60 used, 0 rejected"
    assert reading.startswith(
        '  read as UTF-8, columns separated by ";", decimal commas, times day'
    )
    assert decisions == "decisions.csv: 60 rows read, 60 used, 0 rejected"


@pytest.mark.slow
def test_the_next_commands_run_as_printed(folder):
    write_files(folder, Variant("clean"))
    cases = "case_key,site,occurred_at\nc-1,mill,2027-03-01T10:00Z\n"
    (folder / "cases of May.csv").write_text(cases, encoding="utf-8")
    done = run("--exposure", "blind", "--cases", "cases of May.csv")
    (folder / "policy.yaml").write_text(done.stdout, encoding="utf-8")
    head, *commands = done.stderr.splitlines()[-3:]
    assert head == "Next, with the policy in policy.yaml:"
    for command in commands:
        program, *options = shlex.split(command)
        assert program == "rollout"
        assert CliRunner().invoke(app, options).exit_code == 0
    assert (folder / "replay" / "report.html").is_file()


def test_the_policy_keeps_what_was_chosen(folder):
    write_files(folder, Variant("German", separator=";", date="dots", encoding="latin-1"))
    done = run("--unsure=none", "--map", "predictions.latency_ms=confidence")
    readings = parse_policy(done.stdout).file_readings
    assert readings["predictions"].columns == {"latency_ms": "confidence"}
    assert (readings["decisions"].encoding, readings["decisions"].delimiter) == ("latin-1", ";")
    assert readings["decisions"].date_formats == ("day-first",)
    assert readings["decisions"].unsure == ("none",)


def test_a_guessed_encoding_has_a_word_to_check_it_by(folder):
    write_files(folder, Variant("Latin-1", encoding="latin-1"))
    assert "read as LATIN-1 (as in 'Mühle')" in run().stderr


def test_rejected_rows_are_counted_by_reason_with_an_example(folder):
    write_files(folder, Variant("clean"))
    damage(folder, "predictions.csv", 1, "0.8", "high")
    done = run()
    assert done.exit_code == 0
    first, _, warning, example = done.stderr.splitlines()[:4]
    assert first == "predictions.csv: 60 rows read, 59 used, 1 rejected (bad-number 1)"
    assert warning == "  warning: 1.7\xa0% of the rows can't be used; 1.7\xa0% can't be read"
    assert example.startswith("  predictions.csv:61: confidence: bad-number: 'high14' is no number")


def test_less_than_one_percent_is_no_warning(folder):
    write_files(folder, Variant("clean"))
    for name in ("predictions.csv", "decisions.csv"):
        text = (folder / name).read_text(encoding="utf-8")
        head, _, body = text.partition("\n")
        rows = [body.replace("c-", f"c{n}-") for n in range(3)]
        (folder / name).write_text(head + "\n" + "".join(rows), encoding="utf-8")
    damage(folder, "predictions.csv", 1, "0.8", "high")
    done = run()
    assert "1 rejected" in done.stderr
    assert "of the rows can't be used" not in done.stderr


@pytest.mark.parametrize("count", [6, 7])
def test_more_than_ten_percent_is_refused_with_the_option_that_may_help(folder, count):
    write_files(folder, Variant("clean"))
    damage(folder, "decisions.csv", count, "2027-", "27-")
    done = run()
    assert done.exit_code == (1 if count > 6 else 0)
    assert ("is refused; try --date-format" in done.stderr) == (count > 6)
    assert bool(done.stdout) == (count <= 6)


@pytest.mark.slow
def test_a_case_without_a_readable_time_is_unusable_too(folder):
    write_files(folder, Variant("clean"))
    damage(folder, "predictions.csv", 60, "2027-", "27-")
    done = run()
    assert done.exit_code == 1
    assert "predictions.csv: 100\xa0% of the rows can't be read" in done.stderr


@pytest.mark.slow
def test_the_allowed_share_can_be_raised(folder):
    write_files(folder, Variant("clean"))
    damage(folder, "decisions.csv", 20, "2027-", "27-")
    assert run().exit_code == 1
    assert run("--allow-rejected", "50%").exit_code == 0
    done = run("--allow-rejected", "half")
    assert done.exit_code == 2
    assert "--allow-rejected 'half'" in done.stderr


def test_repeated_rows_are_rejected_and_refuse_nothing(folder):
    write_files(folder, Variant("clean"))
    head, _, body = (folder / "decisions.csv").read_text(encoding="utf-8").partition("\n")
    (folder / "decisions.csv").write_text(head + "\n" + body * 2, encoding="utf-8")
    done = run()
    assert done.exit_code == 0
    assert "120 rows read, 60 used, 60 rejected (duplicate 60)" in done.stderr


@pytest.mark.slow
def test_a_terminal_is_asked_and_the_answer_is_kept(folder, monkeypatch):
    write_files(folder, Variant("01/02", date="slashes", step=EARLY))
    monkeypatch.setattr(remote, "is_terminal", lambda: True)
    done = run(answers="d\nday-first\nmonth-first\n")
    assert done.exit_code == 0
    readings = parse_policy(done.stdout).file_readings
    assert readings["predictions"].date_formats == ("day-first",)
    assert readings["decisions"].date_formats == ("month-first",)
    assert "predictions.csv: times such as 01/03/2027 09:30:07 can have" in done.stderr


@pytest.mark.slow
def test_a_label_that_the_model_predicts_too_is_asked_for(folder, monkeypatch):
    write_files(folder, Variant("clean"))
    for name in ("predictions.csv", "decisions.csv"):
        damage(folder, name, 60, "none", "unknown")
    done = run()
    assert done.exit_code == 2
    assert "decide with --unsure unknown or --unsure ''" in done.stderr
    assert "unknown" in parse_policy(run("--unsure", "").stdout).levers[0].labels
    assert "unknown" not in parse_policy(run("--unsure", "unknown").stdout).levers[0].labels
    monkeypatch.setattr(remote, "is_terminal", lambda: True)
    assert "unknown" in parse_policy(run(answers="no label\n").stdout).levers[0].labels


def test_an_option_can_be_for_one_file(folder):
    write_files(folder, Variant("01/02", date="slashes", step=EARLY))
    done = run("--date-format", "predictions=day-first", "--date-format", "decisions=month-first")
    readings = parse_policy(done.stdout).file_readings
    assert readings["predictions"].date_formats == ("day-first",)
    assert readings["decisions"].date_formats == ("month-first",)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--date-format", "dd/mm"),
        ("--date-format", "%d.%m.%Y"),
        ("--delimiter", "#"),
        ("--decimal", "x"),
        ("--encoding", "klingon"),
    ],
)
def test_an_option_that_says_nothing_is_refused_by_its_name(folder, option, text):
    write_files(folder, Variant("clean"))
    done = run(option, text)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"{option} '{text}'")


def test_times_that_contradict_each_other_are_refused_with_both(folder):
    write_files(folder, Variant("mixed", date="slashes"))
    damage(folder, "predictions.csv", 1, "28/03/2027", "03/28/2027")
    done = run()
    assert done.exit_code == 2
    assert "13/03/2027 " not in done.stderr.splitlines()[0].partition("; name")[2]
    assert "no order of day and month fits every time: 13/03/2027" in done.stderr
    assert "decide with --date-format day-first or --date-format month-first" in done.stderr


def test_local_times_of_a_clock_change_are_named_with_the_first_of_each(folder):
    rows = {"02:15": 2, "02:45": 3, "03:00": 4}
    lines = [f"c-{n},mill,2025-03-30T{hour}:00,v1,bear" for hour, n in rows.items()]
    lines += ["c-5,mill,2025-10-26T02:30:00,v1,bear", "c-6,mill,2025-10-26T02:30:00Z,v1,bear"]
    head = "case_key,site,occurred_at,model_version,label\n"
    (folder / "predictions.csv").write_text(head + "\n".join(lines), encoding="utf-8")
    decisions = "\n".join(f"c-{n},ana,bear" for n in range(2, 7))
    (folder / "decisions.csv").write_text(f"case_key,reviewer,label\n{decisions}\n")
    said = run("--timezone", "Europe/Vienna").stderr
    assert (
        "warning: times that need their offset: 2, first in line 2: '2025-03-30T02:15:00' does"
        in said
    )
    assert (
        "warning: times that need their offset: 1, first in line 5: '2025-10-26T02:30:00' exists"
        in said
    )
    assert "need their offset" not in run().stderr


@pytest.mark.parametrize(
    ("years", "warning"),
    [(["2024", "2025"], ""), (["2024", "2199"], "1 of 2"), (["2198", "2199"], "2 of 2")],
)
def test_a_history_in_the_future_is_named(folder, years, warning):
    rows = [f"c-{year},mill,{year}-03-30T12:00Z,v1,bear" for year in years]
    head = "case_key,site,occurred_at,model_version,label\n"
    (folder / "predictions.csv").write_text(head + "\n".join(rows), encoding="utf-8")
    decisions = "\n".join(f"c-{year},ana,bear" for year in years)
    (folder / "decisions.csv").write_text(f"case_key,reviewer,label\n{decisions}\n")
    said = run().stderr
    text = f"warning: {warning} cases occurred in the future, until 2199-03-30; check the dates"
    assert (text in said) == bool(warning), said


def test_unknown_exposure_is_said_and_can_be_told(folder):
    write_files(folder, Variant("clean"))
    damage(folder, "decisions.csv", 60, ",blind", ",")
    done = run()
    assert "60 decisions have an unknown exposure and are not counted as evidence" in done.stderr
    assert "run init with --exposure blind" in done.stderr
    assert "outside: unknown" in done.stdout
    told = run("--exposure", "blind")
    assert "unknown exposure" not in told.stderr
    assert parse_policy(told.stdout).file_readings["decisions"].exposure == "blind"


def test_a_column_that_is_probably_meant_is_named(folder):
    write_files(folder, Variant("formal", columns="formal"))
    labels = ("--map=predictions.label=pred_label", "--map=decisions.label=pred_label")
    done = run(*labels, "--label=none")
    assert "no column confidence; did you mean --map predictions.confidence=Score?" in done.stderr
    assert "no column decided_at; did you mean --map decisions.decided_at=dec_time?" in done.stderr


def test_expected_traffic_is_drafted_from_the_records(folder):
    write_files(folder, Variant("clean", unsure="unsure"))
    expectation = parse_policy(run().stdout).expect
    assert expectation.units_per_day == pytest.approx(60 / (59 * 11 / 24) / 2, rel=0.01)
    assert dict(expectation.labels)["Bär"] == pytest.approx(18 / 53, abs=0.001)
    assert expectation.agreement == pytest.approx(47 / 53, abs=0.001)


def test_json_lines_and_parquet_are_recognized_too(folder):
    write_files(folder, Variant("percent", confidence="percent", date="seconds"))
    frame = pl.read_csv(folder / "predictions.csv")
    frame.write_parquet(folder / "p.parquet")
    lines = [json.dumps(row) for row in pl.read_csv(folder / "decisions.csv").iter_rows(named=True)]
    (folder / "d.jsonl").write_text("\n".join(lines), encoding="utf-16")
    done = CliRunner().invoke(app, ["init", "p.parquet", "d.jsonl"])
    assert done.exit_code == 0, done.stderr
    readings = parse_policy(done.stdout).file_readings
    assert readings["predictions"].percent
    assert readings["predictions"].date_formats == ("unix-seconds",)
    assert readings["decisions"].encoding == "utf-16"
    assert "60 rows read, 60 used" in done.stderr.splitlines()[2]


def test_times_without_an_offset_have_the_zone_said(folder):
    write_files(folder, Variant("clean"))
    assert "times ISO 8601 in Europe/Vienna" in run("--timezone", "Europe/Vienna").stderr
    write_files(folder, Variant("UTC", date="bigquery"))
    assert "times year-first or ISO 8601, conf" in run("--timezone", "Europe/Vienna").stderr


def test_answers_that_are_numbers_have_the_decimal_sign(folder):
    write_files(folder, Variant("commas", separator=";", decimal=","))
    for name in ("predictions.csv", "decisions.csv"):
        head, *lines = (folder / name).read_text(encoding="utf-8").splitlines()
        rows = [line.split(";") for line in lines]
        place = head.split(";").index("label")
        for number, row in enumerate(rows):
            row[place] = f"{number},5"
        text = "\n".join([head, *(";".join(row) for row in rows)])
        (folder / name).write_text(text, encoding="utf-8")
    done = run()
    assert done.exit_code == 2
    assert "decisions.csv: the comma in 0,5 can be a decimal comma" in done.stderr
    done = run("--decimal", ",", "--equal-sides")
    assert "answer: 60 different numbers, so it is a number from 0 to 60, not labels" in done.stderr
    assert "proposed tolerance is 5%: of 60 pairs 100.0% within 1%, 100.0% within" in done.stderr
    assert "    # 60 different numbers, so no labels; write their unit at `in`\n" in done.stdout
    policy = parse_policy(done.stdout)
    assert policy.levers[0].number is not None
    assert policy.levers[0].number.tolerance.compute_distance(10) == pytest.approx(0.5)
    assert (policy.levers[0].number.high, policy.expect.agreement) == (60.0, 1.0)
    assert policy.file_readings["decisions"].number_levers == {"answer"}


def test_rows_that_can_be_read_but_not_used_are_a_warning(folder):
    write_files(folder, Variant("clean"))
    head, _, body = (folder / "decisions.csv").read_text(encoding="utf-8").partition("\n")
    lines = body.splitlines()
    other = [line.replace("none", "deer") for line in lines if ",none," in line]
    (folder / "decisions.csv").write_text("\n".join([head, *lines, *other]), encoding="utf-8")
    done = run()
    assert done.exit_code == 0
    assert "several-labels" in done.stderr
    assert "warning: 44.2\xa0% of the rows can't be used; 0\xa0% can't be read" in done.stderr


def test_a_file_of_which_nothing_is_used_is_refused(folder):
    write_files(folder, Variant("clean"))
    damage(folder, "decisions.csv", 60, "2027-", "27-")
    done = run()
    assert (done.exit_code, done.stdout) == (1, "")
    assert "decisions.csv: none of the rows can be used" in done.stderr


def test_the_best_classes_of_each_case_are_refused_until_one_row_is_chosen(folder):
    """Whichever row came first, it would be taken for the version's answer."""
    write_files(folder, Variant("clean"))
    header, *rows = (folder / "predictions.csv").read_text(encoding="utf-8").splitlines()
    label = header.split(",").index("label")
    ranked = [f"{row},1" for row in rows]
    for row in rows:
        cells = row.split(",")
        cells[label] = f"not {cells[label]}"
        ranked.insert(0, ",".join([*cells, "2"]))
    text = "\n".join([f"{header},rank", *ranked]) + "\n"
    (folder / "predictions.csv").write_text(text, encoding="utf-8")
    done = run()
    assert (done.exit_code, done.stdout) == (1, "")
    assert "predictions.csv: none of the rows can be used" in done.stderr
    assert "try --predictions-where COLUMN=TEXT for one row a case, or correct" in done.stderr
    done = run("--predictions-where", "rank=1")
    assert done.exit_code == 0, done.stderr
    assert "not " not in str(parse_policy(done.stdout).levers[0].labels)


def test_decisions_that_are_dated_before_their_cases_are_named(folder):
    write_files(folder, Variant("clean"))
    damage(folder, "decisions.csv", 60, "2027-", "2026-")
    done = run()
    assert done.exit_code == 0, done.stderr
    assert "60 came after the first decision and are no evidence. It looks like" in done.stderr
    assert "decisions dated before their cases" in done.stderr
    assert "decisions dated before their cases" in done.stdout


def test_keys_that_no_prediction_has_are_refused_with_one_of_each(folder):
    write_files(folder, Variant("clean"))
    damage(folder, "decisions.csv", 60, "c-", "other-")
    done = run()
    assert (done.exit_code, done.stdout) == (2, "")
    cause = "such as `other-000`, there `c-000`: something before the number?"
    assert f"decisions.csv: 0 of 60 keys occur in predictions.csv; {cause}" in done.stderr


def test_a_placeholder_is_no_name_either(folder):
    write_files(folder, Variant("clean"))
    damage(folder, "predictions.csv", 2, "Mühle", "N/A")
    damage(folder, "decisions.csv", 3, "Zoë-0", "NULL")
    done = run()
    assert "  read as missing, in site: 'N/A' (1)" in done.stderr
    assert "  read as missing, in reviewer: 'NULL' (1)" in done.stderr
    assert "no case yet" in done.stderr
    assert "N/A" not in [site.id for site in parse_policy(done.stdout).sites]


@pytest.mark.slow
def test_none_of_both_sides_is_asked_for_where_the_model_gives_it_no_confidence(
    folder, monkeypatch
):
    write_files(folder, Variant("clean", unsure="unsure"))
    for name in ("predictions.csv", "decisions.csv"):
        damage(folder, name, 60, "none", "None")
    frame = pl.read_csv(folder / "predictions.csv").drop("confidence")
    frame.write_csv(folder / "predictions.csv")
    done = run()
    assert done.exit_code == 2
    assert "'none' can be a label, or mean that there is no answer" in done.stderr
    assert "decide with --label none or --unsure none" in done.stderr
    labels = parse_policy(run("--label", "none").stdout).levers[0].labels
    assert ("None" in labels, "unsure" in labels) == (True, False)
    missing = parse_policy(run("--unsure", "none").stdout)
    assert "None" not in missing.levers[0].labels
    monkeypatch.setattr(remote, "is_terminal", lambda: True)
    assert "None" in parse_policy(run(answers="label\n").stdout).levers[0].labels


@pytest.mark.slow
def test_sides_that_agree_in_every_row_are_asked_for(folder):
    write_files(folder, Variant("clean"))
    for name in ("predictions.csv", "decisions.csv"):
        frame = pl.read_csv(folder / name).with_columns(label=pl.lit("deer"))
        frame.write_csv(folder / name)
    refusal = "humans and model agree in all 60 rows, as one side read twice does; decide with"
    done = run()
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{refusal} --equal-sides" in done.stderr
    done = run("--equal-sides")
    (folder / "policy.yaml").write_text(done.stdout, encoding="utf-8")
    replay = ["replay", "policy.yaml", "--predictions=predictions.csv", "--decisions=decisions.csv"]
    assert refusal in CliRunner().invoke(app, replay).stderr
    done = CliRunner().invoke(app, [*replay, "--equal-sides", "--out", "replay"])
    assert done.exit_code == 0
    assert "--equal-sides" in (folder / "replay" / "report.json").read_text("utf-8")


def test_versions_are_never_averaged(folder):
    write_files(folder, Variant("clean"))
    head, *rows = (folder / "predictions.csv").read_text(encoding="utf-8").splitlines()
    newer = [row.replace(",v1,", ",v2,").replace("deer", "none") for row in rows[10:]]
    (folder / "predictions.csv").write_text("\n".join([head, *rows[:50], *newer]), "utf-8")
    lines = run().stdout.splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("  agreement: "))
    assert "# v2, of 44 pairs of prediction and decision" in lines[place]
    assert lines[place + 1] == "  # v1: 88.6% of 44 pairs"


def test_scores_that_fill_neither_scale_are_asked_about(folder):
    write_files(folder, Variant("clean"))
    frame = pl.read_csv(folder / "predictions.csv")
    scores = pl.Series("confidence", [1.5 + n / 15 for n in range(60)])
    frame.with_columns(scores).write_csv(folder / "predictions.csv")
    done = run()
    assert done.exit_code == 2
    assert "confidences run from 1.5 to 5.43333, which fills neither 0 to 1 nor" in done.stderr
    assert "decide with --percent or --no-percent" in done.stderr
