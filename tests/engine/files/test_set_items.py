"""Sets of labels in sent items: lists and texts become one text, or a sentence."""

import json
from datetime import UTC, datetime

import polars as pl
import pytest

from rollout.engine.files.column_map import ColumnError
from rollout.engine.files.label_set_texts import parse_set
from rollout.engine.files.mapped_rows import expand_values
from rollout.engine.files.parse import ActionWithPermit, ItemReader
from rollout.engine.files.text_formats import find_several_labels
from rollout.engine.records.records import RejectedItem
from rollout.kernel.units import is_label_set

AT = "2025-06-01T12:00:00Z"
SETS = {"logos": ("nike", "puma", "ikea")}
READER = ItemReader(lambda *_: "day", datetime(2026, 1, 1, tzinfo=UTC), SETS)


def read_answer(kind, answer, lever="logos"):
    """Return the stored text of an item's answer, or why the item is rejected."""
    fields = {
        "prediction": {"version": "v1", "answers": {lever: answer}},
        "decision": {"reviewer": "ana", "answers": {lever: answer}},
        "outcome": {"at": AT, "answers": {lever: answer}},
        "action": {"lever": lever, "action": answer, "by": "person", "at": AT},
    }
    (record,) = READER.read_body(json.dumps([{"kind": kind, "key": "a", **fields[kind]}]).encode())
    if isinstance(record, RejectedItem):
        return record.reason
    return record.action.action if isinstance(record, ActionWithPermit) else record.answers[lever]


@pytest.mark.parametrize("kind", ["prediction", "decision", "outcome", "action"])
def test_a_set_has_one_text_in_every_kind_of_item(kind):
    assert read_answer(kind, ["puma", "nike"]) == "nike;puma"
    assert read_answer(kind, "puma; nike") == "nike;puma"
    assert read_answer(kind, []) == "(none of them)"
    assert read_answer(kind, "bear", lever="alarm") == "bear"


@pytest.mark.parametrize("kind", ["decision", "outcome"])
def test_a_humans_wrong_set_is_refused_with_what_to_do(kind):
    assert "logos: nike is written twice; write each label" in read_answer(kind, ["nike"] * 2)
    assert "adidas is none of its labels (nike, puma, ikea)" in read_answer(kind, ["adidas"])
    assert "logos: a label is blank" in read_answer(kind, "nike;")


def test_a_wrong_prediction_stays_because_without_it_the_case_would_be_no_evidence():
    assert read_answer("prediction", ["nike", "adidas"]) == "adidas;nike"
    assert read_answer("prediction", "nike;nike") == "nike;nike"
    assert read_answer("prediction", None) is None


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ([" "], '[" "]'),
        (["(none of them)"], '["(none of them)"]'),
        (["nike;puma"], '["nike;puma"]'),
    ],
)
def test_a_wrong_prediction_becomes_no_other_set(answer, text):
    assert read_answer("prediction", answer) == text
    assert not is_label_set(text, SETS["logos"])


@pytest.mark.parametrize("kind", ["decision", "action"])
def test_a_list_has_one_label_an_item(kind):
    assert "'nike;puma' holds ';'; send each label by itself" in read_answer(kind, ["nike;puma"])
    assert "'(none of them)' is no label; send []" in read_answer(kind, ["(none of them)"])


@pytest.mark.parametrize("kind", ["prediction", "decision", "action"])
def test_a_list_belongs_to_a_lever_with_sets(kind):
    reason = read_answer(kind, ["bear"], lever="alarm")
    assert "alarm: holds a list, and an answer is one value; send one" in reason


def test_an_action_that_is_no_set_stays_a_text():
    assert read_answer("action", "escalate") == "escalate"
    assert "adidas is none of its labels" in read_answer("action", ["adidas"])


def test_a_cell_of_a_file_is_a_list_only_in_json():
    assert parse_set('["nike"]') == ["nike"]
    assert parse_set("[1]") == "[1]"
    assert parse_set("[nike") == "[nike"


def test_a_cell_that_is_nested_too_deeply_is_a_text():
    nested = "[" * 100_000
    assert parse_set(nested) == nested
    assert find_several_labels([nested, "bear"]) is None
    with pytest.raises(ColumnError, match="write an object"):
        expand_values("outcomes.csv", pl.DataFrame({"values": ['{"profit":' + nested]}), ["profit"])
