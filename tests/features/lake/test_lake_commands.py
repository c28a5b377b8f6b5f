"""`rollout count` over files, folders and globs, and a replay of what it wrote."""

import json
import shlex

import polars as pl
import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from tests.features.lake.test_counts import (
    POLICY,
    a_long_history,
    build_frames,
    read_rules,
    write_history,
)

pytestmark = pytest.mark.slow

RUN = CliRunner()


@pytest.fixture
def folder(tmp_path):
    history = a_long_history(120)
    write_history(tmp_path, history)
    (tmp_path / "policy.yaml").write_text(POLICY.replace("UNIT", "case"))
    for name, frame in build_frames(history).items():
        for number, rows in enumerate(frame.iter_slices(50)):
            (tmp_path / name).mkdir(exist_ok=True)
            rows.write_parquet(tmp_path / name / f"{number}.parquet")
    return tmp_path


def run(*arguments):
    return RUN.invoke(app, [*map(str, arguments)])


def count(folder, address, *more):
    files = [f"--{n}={folder}/{address.format(n)}" for n in ("predictions", "decisions", "cases")]
    counted = run("count", folder / "policy.yaml", *files, f"--out={folder}/counts.parquet", *more)
    return counted.output


def find_hash(output):
    assert "hash" in output, output
    return output.split("hash ")[1][:12]


@pytest.mark.parametrize("address", ["{}.csv", "{}/", "{}/*.parquet"])
def test_files_folders_and_globs_count_alike(folder, address):
    whole = find_hash(count(folder, "{}.csv"))
    assert find_hash(count(folder, address, "--engine=duckdb")) == whole


@pytest.mark.slow
def test_a_replay_of_counts_has_the_ledger_of_the_records(folder):
    count(folder, "{}/", "--engine=duckdb")
    counts = run(
        "replay", folder / "policy.yaml", f"--counts={folder}/counts.parquet", f"--out={folder}/c"
    )
    assert "supervised v1" in counts.output
    assert "v1 · alarm: " in counts.output
    assert "Report and lists of cases need the records" in counts.output
    pairs = pl.read_csv(folder / "c" / "pairs.csv")
    assert pairs.columns == ["version", "lever", "site", "window", "human", "model", "units"]
    assert pairs["units"].sum() > 100
    files = [f"--{name}={folder}/{name}.csv" for name in ("predictions", "decisions", "cases")]
    run("replay", folder / "policy.yaml", *files, f"--out={folder}/r")
    ledgers = [(folder / name / "ledger.jsonl").read_text() for name in ("c", "r")]
    assert ledgers[0] == ledgers[1]


def test_what_is_no_part_of_counts_is_refused(folder):
    refused = run("replay", folder / "policy.yaml", "--counts=c.parquet", "--labels=all")
    assert "--labels is about records, and counts have none" in refused.output
    assert "give --predictions and --decisions" in run("replay", folder / "policy.yaml").output


@pytest.mark.parametrize(
    ("address", "text"),
    [("nowhere/{}/", "DuckDB can't read it"), ("{}.jsonl", "for others leave --engine out")],
)
def test_what_an_engine_cannot_open_is_refused(folder, address, text):
    assert text in " ".join(count(folder, address, "--engine=duckdb").split())


def test_a_place_that_cannot_be_written_is_refused_before_counting(folder, monkeypatch):
    monkeypatch.setattr("rollout.features.lake.cli.count_parts", pytest.fail)
    place = folder / "policy.yaml" / "counts.parquet"
    assert "is a file" in count(folder, "{}.csv", f"--out={place}")
    assert "is a folder; name a file in it" in " ".join(
        count(folder, "{}.csv", f"--out={folder}").split()
    )


def test_a_folder_for_the_counts_is_made(folder):
    count(folder, "{}.csv", f"--out={folder}/new/counts.parquet")
    assert (folder / "new" / "counts.parquet").exists()


def test_a_missing_package_is_named(folder, monkeypatch):
    monkeypatch.setattr("rollout.features.lake.cli.find_spec", lambda _: None)
    assert "pip install pyspark" in count(folder, "{}/", "--engine=spark")


def test_what_a_count_names_next_can_be_run(folder):
    place = folder / "my lake"
    place.mkdir()
    (folder / "policy.yaml").rename(place / "policy.yaml")
    files = [f"--{name}={folder}/{name}.csv" for name in ("predictions", "decisions", "cases")]
    out = f"--out={place}/counts.parquet"
    counted = run("count", place / "policy.yaml", *files, out, f"--salt={'ab' * 32}")
    command = shlex.split(counted.output.split("Next: rollout ")[1])
    replayed = run(*command, f"--out={place}/replay")
    assert replayed.exit_code == 0, replayed.output
    assert (place / "replay" / "ledger.jsonl").is_file()


def test_counts_say_what_was_counted(folder):
    count(folder, "{}/", "--engine=duckdb")
    about = json.loads(pl.read_parquet_metadata(folder / "counts.parquet")["rollout counts"])
    assert about["policy_hash"] == read_rules().hash
    assert about["rows"] == {"cases": 120, "predictions": 216, "decisions": 120}
    assert sorted(about["versions"]) == ["v1", "v2"]
