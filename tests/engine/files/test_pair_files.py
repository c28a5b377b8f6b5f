"""Files of pairs: every form gives the same pairs, and a wrong one says what would be right."""

import gzip

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.files import pair_files
from rollout.engine.files.pair_files import count_file, scan_pairs
from rollout.features.reports.inputs.pairs import count_combinations
from rollout.kernel.policy.evidence_sources import FileReading
from tests.properties import examples

ROWS = {
    "case_key": ["a", "b", "c"],
    "model_version": ["v1", "v1", "v2"],
    "site": ["creek", "lake", "creek"],
    "window": ["day", "day", "night"],
    "human": ["bear", "none", "none"],
    "model": ["bear", "bear", None],
    "confidence": [0.9, 0.75, None],
}
FRAME = pl.DataFrame(ROWS)


def written(folder, name, frame=FRAME):
    path = folder / name
    if name.endswith(".parquet"):
        frame.write_parquet(path)
    elif name.endswith(".jsonl"):
        frame.write_ndjson(path)
    else:
        text = frame.write_csv(separator="\t" if ".tsv" in name else ",").encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return path


@pytest.mark.parametrize("name", ["p.parquet", "p.csv", "p.tsv", "p.csv.gz", "p.jsonl"])
def test_every_form_gives_the_same_pairs(tmp_path, name):
    found = scan_pairs(written(tmp_path, name)).collect()
    assert found.rows() == FRAME.rename({"model_version": "version"}).rows()


GERMAN = FileReading(
    encoding="latin-1",
    delimiter=";",
    decimal=",",
    percent=True,
    unsure=("unsure",),
    columns={"human": "Mensch"},
)


def test_a_policy_says_how_pairs_are_written(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes("Mensch;model;confidence\nBär;Bär;93,1\nunsure;Bär;7 %\n".encode("latin-1"))
    found = scan_pairs(path, reading=GERMAN).collect()
    assert found.select("human", "model", "confidence").rows() == [
        ("Bär", "Bär", 0.931),
        (None, "Bär", 0.07),
    ]


def test_percents_of_a_typed_file_are_divided(tmp_path):
    frame = pl.DataFrame({"human": ["a"], "model": ["a"], "confidence": [50.0]})
    found = scan_pairs(written(tmp_path, "p.parquet", frame), reading=FileReading(percent=True))
    assert found.collect()["confidence"].to_list() == [0.5]


def test_labels_that_are_numbers_or_categories_become_text(tmp_path):
    frame = pl.DataFrame({"human": [0, 1], "model": pl.Series(["0", "0"], dtype=pl.Categorical)})
    found = scan_pairs(written(tmp_path, "p.parquet", frame)).collect()
    assert found.rows() == [("row 1", "0", "0"), ("row 2", "1", "0")]


def test_other_columns_are_left_alone_and_names_may_be_mapped(tmp_path):
    frame = pl.DataFrame({"verdict": ["bear"], "said": ["none"], "image": [b"raw"]})
    path = written(tmp_path, "p.parquet", frame)
    found = scan_pairs(path, ["human=verdict", "model=said"]).collect()
    assert found.to_dict(as_series=False) == {
        "case_key": ["row 1"],
        "human": ["bear"],
        "model": ["none"],
    }


def test_a_missing_column_is_reported_with_the_columns_found(tmp_path):
    path = written(tmp_path, "p.csv", pl.DataFrame({"verdict": ["bear"], "model": ["bear"]}))
    with pytest.raises(ValueError, match="no column for 'human'") as caught:
        scan_pairs(path)
    assert "--map human=COLUMN" in str(caught.value)
    assert "found: verdict, model" in str(caught.value)


def test_columns_that_something_else_separates_are_told_what_to_do(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("human;model\nbear;bear\n")
    with pytest.raises(ValueError, match="that is one column: separate columns by commas"):
        scan_pairs(path)


def test_a_map_to_a_column_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no column 'truth', which is mapped to 'human'"):
        scan_pairs(written(tmp_path, "p.csv"), ["human=truth"])


@pytest.mark.parametrize("entry", ["human", "person=verdict", "human="])
def test_a_map_of_another_form_is_refused(tmp_path, entry):
    with pytest.raises(ValueError, match="write NAME=COLUMN; names: case_key, "):
        scan_pairs(written(tmp_path, "p.csv"), [entry])


def test_a_file_of_an_unknown_form_is_refused(tmp_path):
    (tmp_path / "p.xlsx").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"must end in \.parquet, \.csv"):
        scan_pairs(tmp_path / "p.xlsx")


def test_a_damaged_file_is_reported(tmp_path):
    (tmp_path / "p.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(ValueError, match="can't be read"):
        scan_pairs(tmp_path / "p.parquet")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        scan_pairs(tmp_path / "gone.csv")
    assert caught.value.filename.endswith("gone.csv")


TEXTS = st.sampled_from(["bear", "none", "", "Bär", "Ba\u0308r", "a'b", 'a"b', " bear", None])


@pytest.mark.slow
@examples(
    given(rows=st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=60), nan=st.booleans()),
    fast=10,
    whole=100,
)
def test_duckdb_counts_the_combinations_that_polars_counts(tmp_path_factory, rows, nan):
    names = ["human", "model", 'si"te']
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
    frame = frame.with_columns(confidence=pl.lit(float("nan") if nan else 0.5))
    path = written(tmp_path_factory.mktemp("pairs"), "p.parquet", frame)
    mappings = ['site=si"te', 'window=si"te']
    counted = count_file(path, mappings).combinations
    expected = count_combinations(scan_pairs(path, mappings))
    assert sorted(map(repr, counted.select(expected.columns).iter_rows())) == sorted(
        map(repr, expected.iter_rows())
    )
    assert counted.schema == expected.select(counted.columns).schema


def test_duckdb_reads_number_and_ends_of_confidences_off_the_footer(tmp_path):
    path = written(tmp_path, "p.parquet")
    assert count_file(path).confidences == (2, 0.75, 0.9)
    assert count_file(path, reading=FileReading(percent=True)).confidences is None
    for confidence in (pl.lit("0.5"), pl.lit(1)):
        other = written(tmp_path, "o.parquet", FRAME.with_columns(confidence=confidence))
        assert count_file(other).confidences is None
    assert count_file(written(tmp_path, "n.parquet", FRAME.drop("confidence"))).confidences is None


def test_duckdb_reads_no_names_of_folders_and_no_other_file(tmp_path):
    (tmp_path / "site=lake").mkdir()
    path = written(tmp_path / "site=lake", "p.parquet", FRAME.drop("site"))
    assert "site" not in count_file(path).combinations.columns
    assert count_file(written(tmp_path, "[ab]*.parquet")) is None
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["[ab]*.parquet", "site=lake"]


@pytest.mark.parametrize(
    ("frame", "reading"),
    [
        (FRAME.with_columns(human=pl.lit(1)), FileReading()),
        (FRAME.with_columns(human=pl.concat_list("human")), FileReading()),
        (FRAME, FileReading(unsure=("none",))),
    ],
)
def test_duckdb_counts_only_texts_as_they_stand(tmp_path, frame, reading):
    path = written(tmp_path, "p.parquet", frame)
    assert count_file(path, reading=reading) is None
    assert scan_pairs(path, reading=reading).collect().height == 3


@pytest.mark.parametrize("other", ["Human", "HUMAN"])
def test_duckdb_counts_no_column_whose_name_differs_from_another_by_case_alone(tmp_path, other):
    raw = pl.DataFrame({other: ["x", "y", "z"], "human": ["a", "b", "a"], "model": ["a"] * 3})
    assert count_file(written(tmp_path, "p.parquet", raw)) is None
    mappings = [f"human={other}"]
    assert count_file(written(tmp_path, "m.parquet", raw), mappings) is None


def test_without_duckdb_or_with_another_kind_of_file_polars_counts(tmp_path, monkeypatch):
    assert count_file(written(tmp_path, "p.csv")) is None
    path = written(tmp_path, "p.parquet")
    assert count_file(path).combinations.height == 3
    monkeypatch.setattr(pair_files, "find_spec", lambda _name: None)
    assert count_file(path) is None


def test_a_page_that_duckdb_cannot_read_is_left_to_polars(tmp_path):
    path = tmp_path / "p.parquet"
    pl.DataFrame({"human": ["bear"] * 5_000, "model": ["bear"] * 5_000}).write_parquet(path)
    content = bytearray(path.read_bytes())
    content[4:40] = bytes(36)
    path.write_bytes(content)
    assert count_file(path) is None
