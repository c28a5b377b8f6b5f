"""The page on large histories: its commands and its example run as written."""

import re
import shlex

import polars as pl
from typer.testing import CliRunner

import rollout
from rollout.cli.main import app
from rollout.features.lake.counting import UnitCounts
from rollout.features.lake.engines import PREFIX, ROWS_A_PART
from tests import recorded
from tests.docs.pages import text_of

PAGE = text_of("docs/how-to/lake.md")
COMMANDS = re.findall(r"^rollout (.*)$", PAGE, flags=re.MULTILINE)
EXAMPLE = re.search(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_the_commands_and_the_example_run_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recorded.write_records(tmp_path, cases=400)
    text = rollout.draft_policy("predictions.csv", "decisions.csv", rollout="ramps")
    (tmp_path / "policy.yaml").write_text(text)
    frames = {"cases": None}
    for name in ("predictions", "decisions"):
        frames[name] = pl.read_csv(f"{name}.csv", infer_schema=False)
        (tmp_path / name).mkdir()
        frames[name].write_parquet(f"{name}/one.parquet")
    counted, replayed = (CliRunner().invoke(app, shlex.split(line)) for line in COMMANDS)
    assert replayed.exit_code == 0, counted.output + replayed.output
    assert (tmp_path / "replay" / "ledger.jsonl").exists()
    assert EXAMPLE is not None
    exec(EXAMPLE[1], frames)  # noqa: S102 - what the page says
    counts = frames["counts"]
    assert isinstance(counts, UnitCounts)
    assert counts.hash[:12] in counted.output


def test_the_page_names_what_the_program_has():
    assert f"{ROWS_A_PART:,} predictions" in PAGE
    assert f"`{PREFIX}`" in PAGE
