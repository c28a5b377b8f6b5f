"""Keys and labels that the sides of recorded files share, differ by form, or do not share."""

import polars as pl
import pytest

from rollout.engine.files.files import RecordPaths, read_record_files
from rollout.engine.files.questions import NO_CHOICES, FileChoices, OpenQuestionsError
from rollout.engine.files.side_comparison import NothingSharedError, normalize_forms

ROWS = 40


def write(folder, *, keys=("c{}", "c{}"), labels=("bear", "bear"), sites=("mill", "mill")):
    """Write both files; a key has its number at `{}`."""
    predicted = [f"{keys[0].format(n)},{sites[0]},v1,{labels[0]}" for n in range(ROWS)]
    decided = [f"{keys[1].format(n)},{sites[1]},ana,{labels[1]}" for n in range(ROWS)]
    head = "case_key,site,model_version,label,occurred_at"
    rows = [f"{row},2026-03-02T10:00Z" for row in predicted]
    (folder / "predictions.csv").write_text("\n".join([head, *rows]), encoding="utf-8")
    head = "case_key,site,reviewer,label"
    (folder / "decisions.csv").write_text("\n".join([head, *decided]), encoding="utf-8")


def read(folder, choices=NO_CHOICES):
    sources = RecordPaths(folder / "predictions.csv", folder / "decisions.csv")
    options = {"levers": ["answer"], "zones": {}, "default_zone": "UTC"}
    return read_record_files(sources, choices=choices, **options)


@pytest.mark.parametrize(
    ("keys", "cause"),
    [
        (("{:07}", "{}"), "such as `1`, there `0000001`: leading zeros?"),
        (("{}.jpg", "{}"), "such as `1`, there `1.jpg`: another ending of the file?"),
        (("a/b/{}", "{}"), "such as `1`, there `a/b/1`: a folder before the name?"),
        (("IMG_{:04}", "{}"), "such as `1`, there `IMG_0001`: something before the number?"),
        (("a{}a", "b{}b"), "such as `b0b`, there `a0a`; map the column that has the same keys"),
    ],
)
def test_keys_of_which_none_is_shared_are_refused_with_the_cause(tmp_path, keys, cause):
    write(tmp_path, keys=keys)
    with pytest.raises(NothingSharedError) as error:
        read(tmp_path)
    assert "decisions.csv: 0 of 40 keys occur in predictions.csv; " in str(error.value)
    assert cause in str(error.value)


def test_labels_of_which_none_is_shared_are_refused_with_one_of_each(tmp_path):
    write(tmp_path, labels=("bear", "Ursus"))
    with pytest.raises(NothingSharedError, match="humans answer such as 'Ursus', the model such"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"labels": ("bear", "Bear")}, "labels 'Bear' and 'bear'"),
        ({"labels": ("bear", "be\u0301ar")}, None),
        ({"labels": ("b\u00e9ar", "be\u0301ar")}, "labels "),
        ({"labels": ("true", "TRUE")}, "labels 'TRUE' and 'true'"),
        ({"sites": ("mill", "Mill\u00a0")}, "sites "),
        ({"keys": ("c{}.JPG", "c{}.jpg")}, "keys 'c0.jpg' and 'c0.JPG'"),
    ],
)
def test_texts_of_another_form_are_asked_about_by_name(tmp_path, option, text):
    labels = option.setdefault("labels", ("bear", "deer"))
    write(tmp_path, **option)
    if text is None:
        with pytest.raises(NothingSharedError):
            read(tmp_path)
        return
    with pytest.raises(OpenQuestionsError) as error:
        read(tmp_path)
    assert f"differ in form only: {text}" in str(error.value)
    if labels[1] != "deer":
        records = read(tmp_path, FileChoices(same_form=True))
        assert {*records.decisions["value:answer"]} == {labels[0]}


def test_a_common_form_is_that_of_the_predictions(tmp_path):
    write(tmp_path, keys=("{}", "{}.0"))
    records = read(tmp_path, FileChoices(same_form=True))
    assert records.decisions["case_key"].to_list() == records.cases["case_key"].to_list()
    assert records.row_counts["decisions"].used == ROWS


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('["bear"]', "bear"),
        ('{"choices": ["bear"]}', "bear"),
        ('["bear", "deer"]', '["bear", "deer"]'),
        ("1.00", "1"),
        ("1.50", "1.50"),
        ("011", "011"),
        ("a\u00a0\u202f b ", "a b"),
    ],
)
def test_a_form_is_all_that_is_taken_away(text, form):
    assert normalize_forms(pl.Series([text])).to_list() == [form]
