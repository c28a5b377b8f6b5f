"""What a run gives is what the commands give; what can't be run gets a sentence with them."""

import errno
import gzip
import os
import re
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.features.uploads import uploaded_files
from rollout.features.uploads.upload_runs import COMMANDS_TEXT, FILE_NAMES, STEPS, UploadOptions
from rollout.features.uploads.uploaded_files import prepare_file, run_uploaded_files
from tests.recorded import write_records

RAMPS = UploadOptions(rollout="ramps")
BY_COMMAND = re.escape(COMMANDS_TEXT)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "upload"
    made.mkdir()
    write_records(made, cases=400)
    return made


def run(folder, options=RAMPS):
    return run_uploaded_files(folder, options, lambda *_: None)


def command(line):
    done = CliRunner().invoke(app, line.split())
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.slow
def test_a_run_gives_what_the_three_commands_give(folder, tmp_path, monkeypatch):
    steps = []
    result = run_uploaded_files(folder, RAMPS, lambda *step: steps.append(step))
    assert steps == [(name, number, len(STEPS)) for number, name in enumerate(STEPS)]
    monkeypatch.chdir(folder)
    assert command("init predictions.csv decisions.csv --rollout ramps") == result.policy_text
    files = "--predictions predictions.csv --decisions decisions.csv"
    assert command(f"plan policy.yaml {files}") == result.plan + "\n"
    command(f"replay policy.yaml {files} --out {tmp_path / 'out'}")
    assert (tmp_path / "out" / "report.html").read_text("utf-8") == result.report
    assert result.summary in command(f"replay policy.yaml {files}")
    assert [(file.name, file.rows, file.used) for file in result.files] == [
        (name, 400, 400) for name in FILE_NAMES
    ]
    assert result.files[0].sha256 == sha256((folder / "predictions.csv").read_bytes()).hexdigest()
    assert result.salt == sha256(bytes(32)).hexdigest()
    assert (result.is_drafted, result.first < result.last) == (True, True)


@pytest.mark.slow
def test_a_policy_of_the_user_is_used_instead_of_a_draft(folder):
    drafted = run(folder)
    text = drafted.policy_text.replace("rollout: ramps", "rollout: mine")
    result = run(folder, UploadOptions(policy_text=text))
    assert (result.policy_text, result.is_drafted, result.reading) == (text, False, ())
    assert result.policy_hash != drafted.policy_hash
    assert "Plan of mine" in result.plan


@pytest.mark.slow
def test_files_packed_by_gzip_give_the_same(folder):
    for name in FILE_NAMES:  # keys that can't be packed to a tenth, as those of real cases
        text = (folder / name).read_text("utf-8")
        keys = re.sub(r"c-\d+", lambda found: sha256(found[0].encode()).hexdigest(), text)
        (folder / name).write_text(keys, "utf-8")
    plain = run(folder)
    for name in FILE_NAMES:
        pack(folder / name)
    assert run(folder) == plain


def pack(path):
    path.write_bytes(gzip.compress(path.read_bytes()))


def test_gzip_beyond_ten_times_its_size_is_refused_before_it_fills_the_disk(folder, monkeypatch):
    path, sizes = folder / "decisions.csv", []
    unlink = Path.unlink

    def measure_and_unlink(file, **options):
        sizes.append(file.stat().st_size)
        unlink(file, **options)

    monkeypatch.setattr(Path, "unlink", measure_and_unlink)
    path.write_bytes(gzip.compress(b"a" * 30_000_000))
    size = path.stat().st_size
    with pytest.raises(ValueError, match=rf"decisions.csv unpacks to more than 10 .*{BY_COMMAND}"):
        run(folder)
    assert len(sizes) == 1
    assert sizes[0] <= 10 * size
    assert not (folder / "decisions.csv.unpacked").exists(), "kept files would keep it too"


def test_gzip_of_gzip_is_no_csv_and_damaged_gzip_is_named(folder):
    path = folder / "predictions.csv"
    content = path.read_bytes()
    path.write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(ValueError, match=r"predictions.csv is damaged: .*; pack it again"):
        run(folder)
    path.write_bytes(gzip.compress(gzip.compress(content)))
    packed = path.read_bytes()
    with pytest.raises(ValueError, match=r"predictions\.csv is packed twice; pack it once"):
        run(folder)
    assert path.read_bytes() == packed, "each run over kept files would unpack one more layer"


class FullDisk(BytesIO):
    """A file on a disk that has no room."""

    def write(self, _content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_not_called_a_damaged_file(folder, monkeypatch):
    path, real_open = folder / "predictions.csv", Path.open
    path.write_bytes(gzip.compress(b"case_key,label"))

    def open_file(file, mode="r", **options):
        return FullDisk() if mode == "wb" else real_open(file, mode, **options)

    monkeypatch.setattr(Path, "open", open_file)
    with pytest.raises(ValueError, match=r"could not be unpacked: .* disk is full .*; tell who"):
        prepare_file(path)


def zipped(content):
    packed = BytesIO()
    with ZipFile(packed, "w") as file:
        file.writestr("predictions.csv", content)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda _: b"", "predictions.csv is empty; choose the file again"),
        (zipped, f"predictions.csv is a zip file or an Excel workbook; .*{BY_COMMAND}"),
        (lambda content: b"%PDF-1.7 \n" + content, "predictions.csv is a PDF"),
        (lambda content: b"PAR1" + content, "predictions.csv is a Parquet file"),
        (lambda _: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40, "predictions.csv"),
        (lambda _: b"\0" * 5_000, "predictions.csv"),
        (lambda _: b"<html><body>no</body></html>\n", "case_key"),
        (lambda content: content.replace(b"site", b"label", 1), "found twice: label"),
        (lambda content: content.replace(b"case_key", b"key_of_it", 1), "case_key"),
        (lambda content: content.replace(b",0.9", b",0.9,0.9"), "rows"),
        (lambda content: content.split(b"\n")[0] + b"\n", "."),
        (lambda content: b"\xff\xfe" + content, "predictions.csv"),
    ],
    ids=["empty", "zip", "pdf", "parquet", "picture", "zeros", "page", "twice", "column", "fields",
         "no row", "encoding"],
)  # fmt: skip
def test_what_is_no_csv_of_records_gets_a_sentence(folder, change, text):
    path = folder / "predictions.csv"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=text):
        run(folder)


@pytest.mark.slow
def test_one_row_too_many_is_refused_drafted_or_not(folder, monkeypatch):
    policy_text = run(folder).policy_text
    monkeypatch.setattr(uploaded_files, "MAX_ROWS", 399)
    limit = rf"predictions.csv has 400 rows; at most 399 are run here; run .*{BY_COMMAND}"
    for options in (RAMPS, UploadOptions(policy_text=policy_text)):
        with pytest.raises(ValueError, match=limit):
            run(folder, options)
    monkeypatch.setattr(uploaded_files, "MAX_ROWS", 400)
    run(folder)


def test_a_file_of_very_many_lines_is_refused_unread(folder):
    with (folder / "predictions.csv").open("ab") as file:
        file.write(b"\n" * 2_000_000)
    with pytest.raises(ValueError, match=r"has 2,000,401 lines; at most 200,000 are run here"):
        run(folder)


@pytest.mark.slow
def test_two_readings_get_a_question_that_the_form_answers(folder):
    path = folder / "decisions.csv"
    text = path.read_text("utf-8")
    path.write_text(re.sub(r"2027-0(\d)-(\d\d)T", r"0\1/0\1/2027 ", text), "utf-8")
    with pytest.raises(ValueError, match=r"choose the date format under .*: .*day-first or month"):
        run(folder)
    chosen = replace(RAMPS, readings=(("--date-format", "day-first"),))
    assert "day-first" in run(folder, chosen).policy_text


@pytest.mark.slow
def test_a_backtest_is_asked_about_and_counts_if_the_form_says_so(folder):
    path = folder / "predictions.csv"
    head, *lines = path.read_text("utf-8").splitlines()
    late = [f"{line},2028-01-01T00:00:00Z" for line in lines]
    path.write_text("\n".join([f"{head},predicted_at", *late]), "utf-8")
    asked = r"were predicted after they were decided.*choose the backtest under .*: true or false"
    with pytest.raises(ValueError, match=asked):
        run(folder)
    answered = replace(RAMPS, readings=(("--backtest", "true"),))
    result = run(folder, answered)
    assert "predictions were made after the decisions, and count" in " ".join(
        result.summary.split()
    )
    with pytest.raises(ValueError, match=asked):
        run(folder, replace(RAMPS, policy_text=result.policy_text))
    assert run(folder, replace(answered, policy_text=result.policy_text)).summary == result.summary


@pytest.mark.slow
def test_a_sample_of_labels_is_asked_about_and_read_as_one(folder):
    path = folder / "decisions.csv"
    head, *lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([head, *lines[::3]]), "utf-8")
    with pytest.raises(ValueError, match=r"choose the equal sides under .*: true"):
        run(folder)
    readings = (("--equal-sides", "true"),)
    with pytest.raises(ValueError, match=r"choose the labels under .*: sampled or all"):
        run(folder, replace(RAMPS, readings=readings))
    result = run(folder, replace(RAMPS, readings=(*readings, ("--labels", "sampled"))))
    assert "only the 134 of 400 predicted cases" in " ".join(result.summary.split())


@pytest.mark.slow
def test_options_of_the_form_reach_the_draft(folder):
    options = replace(RAMPS, timezone="Europe/Vienna", exposure="assisted")
    result = run(folder, options)
    assert "timezone: Europe/Vienna" in result.policy_text
    assert (
        "unsure: [sound]"
        in run(folder, replace(RAMPS, readings=(("--unsure", "sound"),))).policy_text
    )
    for wrong in (replace(RAMPS, timezone="Nowhere/At"), replace(RAMPS, rollout="a b!")):
        with pytest.raises(ValueError, match=r"Nowhere/At|a b!"):
            run(folder, wrong)


HOSTILE = '=HYPERLINK("http://evil.example","x")'
MARKUP = "<script>alert(1)</script>"


@pytest.mark.slow
def test_labels_that_are_formulas_or_markup_stay_text(folder):
    for name in FILE_NAMES:
        path = folder / name
        text = path.read_text("utf-8").replace(",damaged,", f",{MARKUP},")
        quoted = '"' + HOSTILE.replace('"', '""') + '"'
        path.write_text(text.replace(",sound,", f",{quoted},"), "utf-8")
    result = run(folder)
    assert MARKUP not in result.report
    assert "&lt;script&gt;" in result.report
    assert f'"{HOSTILE}' not in result.policy_text.replace("'", "")
    assert (
        run(folder, UploadOptions(policy_text=result.policy_text)).policy_hash == result.policy_hash
    )


@pytest.mark.slow
def test_nothing_outside_of_the_folder_is_read_into_the_report(folder, tmp_path):
    picture = b"\x89PNG\r\n\x1a\n" + b"x" * 30
    (tmp_path / "secret.png").write_bytes(picture)
    path = folder / "predictions.csv"
    head, *rows = path.read_text("utf-8").splitlines()
    path.write_text(
        "\n".join([f"{head},media", *(f"{row},../secret.png" for row in rows)]), "utf-8"
    )
    report = run(folder).report
    assert "data:image" not in report
