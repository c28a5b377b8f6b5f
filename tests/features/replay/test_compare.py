"""`rollout compare`: one file, four parts, as text and as JSON; no store is opened."""

import json
import re
import subprocess
import sys

import polars as pl
import pytest
from typer.testing import CliRunner

from rollout.cli.main import app

POLICY = """
rollout: ramps
timezone: UTC
levers:
  - id: alarm
    labels: [none, bear]
    actions: {none: nothing, bear: siren}
    costs: [{did: nothing, right: siren, cost: 9}, {cost: 1}]
sites: [creek]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 90%}]}]
"""
TWO = POLICY.replace("levers:\n", "levers:\n  - {id: gate, labels: [open, shut]}\n")


@pytest.fixture
def pairs(tmp_path):
    frame = pl.DataFrame(
        {
            "case_key": [f"c{number}" for number in range(10)],
            "site": ["creek"] * 6 + ["lake"] * 4,
            "human": ["bear"] * 4 + ["none"] * 6,
            "model": ["bear"] * 3 + ["none"] * 6 + ["bear"],
            "confidence": [0.9] * 3 + [0.8] * 6 + [0.95],
        }
    )
    frame.write_parquet(tmp_path / "pairs.parquet")
    return tmp_path / "pairs.parquet"


@pytest.fixture
def policy(tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path / "policy.yaml"


def run(*words, code=0):
    done = CliRunner().invoke(app, ["compare", *map(str, words)])
    assert done.exit_code == code, done.output
    return done.output


def test_it_prints_confusion_labels_cells_and_losses(pairs):
    text = run(pairs)
    assert "8 of 10 pairs agree" in text
    assert re.search(r"1 bear +3 +1\n", text)
    assert re.search(r"none +6 +6 +5 +83\.3 %", text)
    assert re.search(r"lake +4 +75\.0 %.+ too few\n", text)
    lines = text.splitlines()
    losses = lines[next(n for n, line in enumerate(lines) if line.startswith("Top losses")) :]
    assert [line.split()[0] for line in losses[2:]] == ["c9", "c3"]


def test_it_says_that_none_of_it_is_evidence(pairs):
    assert "these figures are not evidence" in " ".join(run(pairs).split())


def test_json_has_all_of_it_unrounded(pairs):
    found = json.loads(run(pairs, "--json"))
    (one,) = found["comparisons"]
    assert (one["agreement"]["rate"], found["rows"], found["with_confidence"]) == (0.8, 10, 10)
    assert one["label_matrix"] == {
        "labels": ["bear", "none"],
        "counts": [[3, 1], [1, 5]],
        "costs": None,
    }
    assert [loss["case_key"] for loss in found["top_losses"]] == ["c9", "c3"]
    assert found["top_losses"][0]["loss"] == pytest.approx(2.9957, abs=1e-4)


def test_a_policy_gives_costs_actions_and_the_order_of_labels(pairs, policy):
    found = json.loads(run(pairs, "--policy", policy, "--json"))
    (one,) = found["comparisons"]
    assert one["cost"] == 1.0
    assert one["label_matrix"]["labels"] == ["none", "bear"]
    assert one["action_matrix"]["costs"] == [[0.0, 1.0], [9.0, 0.0]]
    assert [loss["case_key"] for loss in found["top_losses"]] == ["c3", "c9"]


def test_without_confidences_it_says_so_and_goes_on(pairs, tmp_path):
    pl.read_parquet(pairs).drop("confidence").write_csv(tmp_path / "plain.csv")
    text = run(tmp_path / "plain.csv", "--label", "none")
    assert "8 of 10 pairs agree" in text
    assert "the file has no confidences" in text


def test_an_empty_file_has_no_figures(tmp_path):
    (tmp_path / "none.csv").write_text("human,model\n")
    assert "none.csv: 0 rows" in run(tmp_path / "none.csv")


@pytest.mark.parametrize(("first", "says"), [("90", "run from 0.75 to 90; write 0 to 1"),
                                             ("sure", "can't be read")])  # fmt: skip
def test_a_confidence_that_is_none_is_refused(tmp_path, first, says):
    path = tmp_path / "pairs.csv"
    path.write_text(f"human,model,confidence\nelk,elk,{first}\nelk,bear,0.75\n")
    assert says in run(path, code=2)


def test_a_lever_that_the_policy_lacks_is_refused_with_those_it_has(pairs, policy):
    assert "levers: alarm" in run(pairs, "--policy", policy, "--lever", "gate", code=2)


def test_of_several_levers_one_has_to_be_said(pairs, tmp_path):
    (tmp_path / "two.yaml").write_text(TWO)
    said = run(pairs, "--policy", tmp_path / "two.yaml", code=2)
    assert "levers are gate, alarm; say which" in said
    assert "8 of 10" in run(pairs, "--policy", tmp_path / "two.yaml", "--lever", "alarm")


def test_columns_of_other_names_are_mapped(pairs, tmp_path):
    renamed = pl.read_parquet(pairs).rename({"human": "verdict"})
    renamed.write_csv(tmp_path / "other.csv")
    assert "--map human=COLUMN" in run(tmp_path / "other.csv", code=2)
    assert "8 of 10" in run(tmp_path / "other.csv", "--map", "human=verdict")


def test_what_is_wrong_with_a_file_is_said_without_advice_to_programmers(tmp_path):
    (tmp_path / "bad.csv").write_text('human,model\n"a,b\n')
    said = run(tmp_path / "bad.csv", code=2)
    assert "is not properly escaped" in said
    assert "infer_schema_length" not in said


# Numbers

PRICES = POLICY.replace(
    "    labels: [none, bear]\n    actions: {none: nothing, bear: siren}\n",
    "    number: {in: EUR, from: 0, to: 500, tolerance: 5%}\n",
).replace(
    "[{did: nothing, right: siren, cost: 9}, {cost: 1}]", "[{under: 20%, cost: 9}, {cost: 1}]"
)


@pytest.fixture
def prices(tmp_path):
    """240 pairs: half are 2 % high, the others 8 % low, one 30 % low, one blank."""
    human = [f"{100 + n / 3:.2f}" for n in range(240)]
    model = [f"{float(x) * (1.02 if n % 2 else 0.92):.2f}" for n, x in enumerate(human)]
    model[0], model[2] = f"{float(human[0]) * 0.7:.2f}", ""
    sites = ["creek" if n % 2 else "lake" for n in range(240)]
    frame = pl.DataFrame({"site": sites, "human": human, "model": model, "confidence": [0.9] * 240})
    frame.write_csv(tmp_path / "prices.csv")
    return tmp_path / "prices.csv"


def test_numbers_are_no_labels_and_want_a_tolerance(prices):
    text = run(prices, code=2)
    assert "the answers are numbers (240 different ones of humans), not labels" in text
    assert "--tolerance 5%" in text


def test_numbers_have_bias_and_limits_and_no_matrix(prices):
    text = run(prices, "--tolerance", "5%")
    assert "120 of 240 pairs agree" in text
    assert re.search(r"bias \(model − human\) +−[\d.]+ % +−[\d.]+ to −[\d.]+\n", text)
    assert re.search(r"creek +120 +100 %", text)
    assert "Confusion" not in text
    assert "kappa" not in text
    found = json.loads(run(prices, "--tolerance", "5%", "--json"))
    (numbers,), (comparison,) = found["numbers"], found["comparisons"]
    assert (comparison["label_matrix"], comparison["labels"]) == (None, [])
    assert numbers["within"]["count"] == comparison["agreement"]["count"] == 120
    assert (numbers["failed"], numbers["concordance"]["n"]) == (1, 239)
    expected = (120 * 2 - 118 * 8 - 30) / 239
    assert numbers["relative"]["bias"]["value"] == pytest.approx(expected, abs=0.01)


def test_a_policy_gives_numbers_their_range_and_costs(prices, tmp_path):
    (tmp_path / "prices.yaml").write_text(PRICES)
    found = json.loads(run(prices, "--policy", tmp_path / "prices.yaml", "--json"))
    (numbers,) = found["numbers"]
    bands = {band["name"]: band["share"]["count"] for band in numbers["bands"]}
    assert bands == {
        "within the tolerance (5 %)": 120,
        "more than 20 % below": 1,
        "any other beyond the tolerance": 118,
        "no number, or one out of range": 1,
    }
    assert found["top_losses"][0] | {"case_key": "row 1", "cost": 9.0} == found["top_losses"][0]
    both = run(prices, "--policy", tmp_path / "prices.yaml", "--tolerance", "2", code=2)
    assert "the policy has one" in both
    refused = run(prices, "--tolerance", "banana", code=2)
    assert "--tolerance banana: is no distance; write a number such as 2, or a share" in refused


def test_an_answer_that_is_no_number_is_refused_with_its_text(prices):
    pl.read_csv(prices, infer_schema=False).with_columns(
        model=pl.when(pl.col("model") == "").then(pl.lit("cheap")).otherwise("model")
    ).write_csv(prices)
    assert "column model: 1 answers are no numbers, first 'cheap'" in run(
        prices, "--tolerance", "2", code=2
    )


@pytest.mark.slow
def test_numbers_of_classes_stay_labels(tmp_path):
    path = tmp_path / "classes.csv"
    pl.DataFrame({"human": range(100), "model": range(1, 101)}).write_csv(path)
    assert "0 of 100 pairs agree" in run(path)


SETS = POLICY.replace(
    "    labels: [none, bear]\n    actions: {none: nothing, bear: siren}\n"
    "    costs: [{did: nothing, right: siren, cost: 9}, {cost: 1}]\n",
    "    labels: [bear, cub, fox]\n    many: true\n    overlap: 50%\n    costs: [{cost: 4}]\n",
)


@pytest.fixture
def sets(tmp_path):
    """Return JSON lines of lists, and the same pairs as texts in CSV."""
    rows = [
        (["bear", "cub"], ["cub", "bear"], 0.9),
        (["bear", "cub"], ["cub"], 0.8),
        ([], ["fox"], 0.7),
        (["fox"], ["bear"], 0.6),
        (None, ["fox"], 0.5),
        (["fox"], None, 0.4),
    ]
    frame = pl.DataFrame(rows, schema=["human", "model", "confidence"], orient="row")
    frame.write_ndjson(tmp_path / "sets.jsonl")
    texts = [
        pl.when(pl.col(side).is_not_null())
        .then(pl.when(pl.col(side).list.len() > 0).then(pl.col(side).list.join("; ")))
        .otherwise(pl.lit(""))
        .fill_null("[]")
        .alias(side)
        for side in ("human", "model")
    ]
    frame.with_columns(texts).write_csv(tmp_path / "sets.csv")
    return tmp_path


def test_sets_agree_by_overlap_and_have_figures_by_label(sets):
    (sets / "policy.yaml").write_text(SETS)
    found = [
        json.loads(run(sets / name, *more, "--json"))
        for name in ("sets.jsonl", "sets.csv")
        for more in (("--overlap", "50%"), ("--policy", sets / "policy.yaml"))
    ]
    for one in found:
        (comparison,), (agreement,) = one["comparisons"], one["sets"]
        assert (comparison["agreement"]["count"], comparison["agreement"]["n"]) == (2, 5)
        assert (agreement["equal"]["count"], agreement["overlap"]) == (1, 0.5)
        assert (agreement["wrong_human"], agreement["wrong_model"]) == (0, 0)
        counts = {r["label"]: (r["human"], r["model"], r["both"]) for r in comparison["labels"]}
        assert counts == {"bear": (2, 2, 1), "cub": (2, 2, 2), "fox": (2, 1, 0)}
        assert (comparison["label_matrix"], comparison["kappa"]) == (None, None)
        losses = [(loss["human"], loss["model"]) for loss in one["top_losses"]]
        assert losses == [("(none of them)", "fox"), ("fox", "bear")]
    costs = [(one["comparisons"][0]["cost"], one["top_losses"][0]["cost"]) for one in found]
    assert costs == [(None, 1.0), (2.4, 4.0)] * 2


def test_sets_are_no_labels_and_want_an_overlap(sets):
    text = " ".join(run(sets / "sets.csv", code=2).split())
    assert "answers such as 'bear; cub' hold several labels" in text
    assert "`--overlap 100%`" in text
    assert "equal sets" not in run(sets / "sets.jsonl", "--overlap", "100%")
    assert "would let any two sets agree" in run(sets / "sets.csv", "--overlap", "0%", code=2)
    both = run(sets / "sets.csv", "--overlap", "50%", "--tolerance", "2", code=2)
    assert "leave out one of them" in " ".join(both.split())


def test_sets_are_printed_with_labels_and_without_a_matrix(sets):
    text = run(sets / "sets.jsonl", "--overlap", "50%")
    assert "equal sets: 1 of 5, 20.0 %" in text
    assert "alpha by MASI distance: too few units (5)" in text
    assert re.search(r"\n  cub +2 +2 +2 +100 %", text)
    assert "Confusion" not in text
    (sets / "many.jsonl").write_text((sets / "sets.jsonl").read_text() * 6)
    text = run(sets / "many.jsonl", "--overlap", "50%")
    assert re.search(r"alpha by MASI distance 0\.\d+, 95 % interval \S+ to 0\.\d+", text)
    (sets / "policy.yaml").write_text(SETS.replace("[bear, cub, fox]", "[bear, cub]"))
    text = run(sets / "sets.jsonl", "--policy", sets / "policy.yaml")
    assert "no set of the labels: 2 answers of humans; only the same text agrees" in text
    assert "no set of the labels: 1 answer of the model; only" not in text


@pytest.mark.slow
def test_a_process_that_counts_with_duckdb_ends_without_a_word_on_stderr(pairs):
    command = [sys.executable, "-m", "rollout", "compare", str(pairs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "8 of 10 pairs agree" in done.stdout
    assert done.stderr == ""  # DuckDB lists objects that a frame made from its result keeps alive


def test_none_of_both_sides_without_confidences_is_asked_for(pairs, tmp_path):
    pl.read_parquet(pairs).drop("confidence").write_csv(tmp_path / "plain.csv")
    text = run(tmp_path / "plain.csv", code=2)
    assert "plain.csv: 'none' can be a label, or mean that there is no answer" in text
    assert "decide with --label none or --unsure none" in text
    assert "3 of 4 pairs agree" not in run(tmp_path / "plain.csv", "--label", "none")
    assert "3 of 4 pairs agree" in run(tmp_path / "plain.csv", "--unsure", "none")


def test_pairs_that_are_all_equal_are_asked_for(tmp_path):
    frame = pl.DataFrame({"human": ["deer", "bear"] * 25, "model": ["deer", "bear"] * 25})
    frame.write_csv(tmp_path / "pairs.csv")
    text = run(tmp_path / "pairs.csv", code=2)
    assert "humans and model agree in all 50 rows" in text
    assert "decide with --equal-sides" in text
    assert "50 of 50 pairs agree" in run(tmp_path / "pairs.csv", "--equal-sides")
    frame.head(49).write_csv(tmp_path / "pairs.csv")
    assert "49 of 49 pairs agree" in run(tmp_path / "pairs.csv")
