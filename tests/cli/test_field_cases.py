"""Files in the shape that users have are read right, or refused with the true cause.

The right values are those of ../shared/data/field-cases/README.md.
"""

import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.formats.policy.reader import parse_policy
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
