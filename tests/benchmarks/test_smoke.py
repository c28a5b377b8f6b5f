"""Each benchmark still runs, on little: figures are for people to measure, never for a test.

A script runs in a process of its own, as `make bench` runs it, with its sizes made small.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks.run import JOBS

pytestmark = pytest.mark.exhaustive
ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
IMPORTED = {
    "coverage_counts",
    "coverage_units",
    "gain_senders",
    "history",
    "live_tick",
    "reported_figures",
    "served_senders",
    "stored_figures",
    "tick",
}
TESTED_ELSEWHERE = {"cleaning", "coverage", "run"}
TOO_LONG = {"slices", "stops_under_sign_ins"}  # a minute of CPU each, however little they do
ARGUMENTS = {
    "causes": ("--units", "3000"),
    "confidence_floors": ("--seeds", "1"),
    "figures": ("--sizes", "20000", "--turns", "1", "--facts", "1000"),
    "first_tick": ("--cases", "300", "--days", "3"),
    "ingest_postgresql": ("100", "3"),
    "label_errors": ("--rows", "2000"),
    "number_intervals": ("--repeats", "2"),
    "number_reports": ("--pairs", "2000"),
    "replay": ("--pairs", "2000"),
    "replayed_guards": (str(ROOT / "examples/bears/policy.yaml"), "--seeds", "1"),
    "counting": ("--sizes", "400"),
    "curves": ("--cells", "8", "--stored", "1000", "--sites", "3", "--replicas", "1"),
    "scope_at": ("--rows", "1000"),
    "senders": ("--seeds", "1", "at once"),
    "stops_while_counting": ("--cases", "100"),
    "ticks": ("--cells", "20"),
    "timeline": ("--cases", "1"),
}
"""Scripts whose arguments make them small."""
CONSTANTS = {
    "assignments": {"SITES, WINDOWS": "3, 4", "ROUNDS, REQUESTS, BATCHES, BATCH": "1, 3, 2, 5"},
    "commands": {"STOPS": "3", "RUNS": "1", "MOST_COMMANDS": "2"},
    "counting": {"CELLS, BATCH": "8, 5_000"},
    "console_pages": {"SITES": "8"},
    "console_polls": {"ROLLOUTS, PAGES, EVERY, SECONDS": "2, 2, 1.2, 2"},
    "decisions": {"SITES, WINDOWS, CELLS_SITES": "3, 2, 4", "ROUNDS, QUESTIONS": "2, 20"},
    "first_tick": {"SITES, TURNS": "2, 1"},
    "ingest": {"PAIRS, TURNS": "1_000, 1"},
    "curves": {"TURNS, BATCH": "1, 100", "PAIRS_OF_A_REPLICA": "200"},
    "ingest_postgresql": {"REQUESTS, WINDOW": "4, 2"},
    "ingest_served": {"TURNS, PAIRS, BATCHES": "1, 200, (100,)"},
    "memory": {"CASES, QUESTIONS, BATCH": "20, 20, 10", "DEFAULT_PARTS": '("answering",)'},
    "next_case": {"KEYS, WARM_UP": "2, 1"},
    "number_intervals": {"MANY": "1_000"},
    "operational_guards": {"DAYS, FIRST_DAY": "2, 20_000", "SEEDS": "(1,)", "DELAY_RUNS": "1"},
    "replayed_guards": {"DAYS": "3"},
    "stops_while_counting": {"SITES": "20"},
    "what_if_beside": {
        "SITES, EACH": "4, 10",
        "TURNS, REQUESTS, STOPS": "1, 5, 2",
        "LONGEST_START": "0.1",
    },
}
"""Constants replaced in a copy of the folder, for the processes too that a script starts."""


def test_every_script_is_tried():
    scripts = {path.stem for path in BENCHMARKS.glob("*.py")}
    assert scripts == {*ARGUMENTS, *CONSTANTS, *IMPORTED, *TESTED_ELSEWHERE, *TOO_LONG}
    assert set(JOBS) <= scripts


@pytest.fixture(scope="module")
def small_copies(tmp_path_factory):
    """Return a folder with the scripts, their constants made small."""
    folder = tmp_path_factory.mktemp("small") / "benchmarks"
    shutil.copytree(BENCHMARKS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for script, constants in CONSTANTS.items():
        path = folder / f"{script}.py"
        text = path.read_text(encoding="utf-8")
        for names, values in constants.items():
            text, count = re.subn(rf"(?m)^{names} = [^#\n]*", f"{names} = {values}", text)
            assert count == 1, (script, names)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("script", sorted({*ARGUMENTS, *CONSTANTS}))
def test_a_script_runs_on_little(script, small_copies):
    folder = small_copies if script in CONSTANTS else BENCHMARKS
    run = run_script(folder / f"{script}.py", *ARGUMENTS.get(script, ()))
    assert run.returncode == 0, run.stderr
    assert re.search(r"\d", run.stdout) or "no PostgreSQL" in run.stdout, "no figure is printed"


def test_all_jobs_in_one_run_are_kept_as_markdown_and_json(tmp_path, small_copies):
    run = run_script(small_copies / "run.py", "decisions", "memory", "--out", str(tmp_path))
    assert run.returncode == 0, run.stderr
    document = json.loads((tmp_path / "bench.json").read_text())
    assert [job["job"] for job in document["jobs"]] == ["decisions", "memory"]
    assert all(job["exit_code"] == 0 and job["cpu_seconds"] > 0 for job in document["jobs"])
    for job in document["jobs"]:
        assert job["figures"], job["job"]
        for figure in job["figures"]:
            assert 0 <= figure["min"] <= figure["median"] <= figure["max"], figure
            assert figure["what"]
            assert figure["unit"]
    goals = {figure["what"]: figure["goal"] for figure in document["jobs"][0]["figures"]}
    assert goals["shadow, look-ups"] == 10
    page = (tmp_path / "bench.md").read_text()
    assert all(line in page for job in document["jobs"] for line in job["lines"])
    assert document["setting"]["commit"] in page


def test_peers_are_named_and_missing_ones_are_left_out(tmp_path, small_copies):
    alone = small_copies.parent / "peers"
    shutil.copytree(small_copies, alone)
    (alone / "replay.py").write_text("print('1')")
    text = (alone / "run.py").read_text()
    assert text.count('("polars",)') == 1
    (alone / "run.py").write_text(text.replace('("polars",)', '("polars", "no-such-peer")'))
    run = run_script(alone / "run.py", "replay", "--out", str(tmp_path))
    assert run.returncode == 0, run.stderr
    (job,) = json.loads((tmp_path / "bench.json").read_text())["jobs"]
    assert job["peers"] == {"polars": version("polars"), "no-such-peer": "not installed, left out"}
    assert "no-such-peer not installed, left out" in (tmp_path / "bench.md").read_text()


def test_the_curves_are_kept_as_json_with_time_and_disk(tmp_path, small_copies):
    sizes = ("--cells", "8", "20", "--stored", "200", "--sites", "3", "--replicas")
    run = run_script(small_copies / "curves.py", *sizes, "--out", str(tmp_path))
    assert run.returncode == 0, run.stderr
    document = json.loads((tmp_path / "curves.json").read_text())
    points = document["points"]
    assert [point["size"] for point in points] == [8, 20, 200, 3]
    assert all(0 < point["min"] <= point["median"] <= point["max"] for point in points)
    assert all(point["seconds"] > 0 for point in points)
    assert [point["disk_bytes"] is not None for point in points] == [False, False, True, False]
    assert {"at", "commit", "processors", "load"} <= set(document["setting"])
    assert "--stored 200" in document["command"]


def test_a_job_that_fails_is_named_and_the_others_are_kept(tmp_path, small_copies):
    broken = small_copies.parent / "broken"
    shutil.copytree(small_copies, broken)
    (broken / "causes.py").write_text("raise SystemExit('the disk is full')")
    run = run_script(broken / "run.py", "causes", "decisions", "--out", str(tmp_path))
    assert run.returncode == 1
    assert "failed: causes" in run.stderr
    codes = [job["exit_code"] for job in json.loads((tmp_path / "bench.json").read_text())["jobs"]]
    assert codes == [1, 0]
    assert "the disk is full" in (tmp_path / "bench.md").read_text()


def test_an_unknown_job_is_refused_with_the_names():
    run = run_script(BENCHMARKS / "run.py", "decision")
    assert run.returncode == 2
    assert "name some of decisions, assignments" in run.stderr


def run_script(path, *arguments):
    return subprocess.run(
        [sys.executable, str(path), *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(path.parents[1]) + os.pathsep + str(ROOT)},
    )
