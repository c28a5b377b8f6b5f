"""A column `content` in predictions declares versions' contents; another one is refused."""

import pytest

from rollout.engine.events import VersionFirstUsed, VersionRenamed
from rollout.features.replay.replay import replay_files
from rollout.features.replay.requests import list_file_contents, read_request_records
from rollout.kernel.policy_files.reader import parse_policy
from tests.features.replay.test_replay import POLICY, an_order, rows

FIRST, OTHER = "ab" * 32, "cd" * 32


def order(folder, last, **more):
    """Return the order to replay 40 cases, the last of which have these contents."""
    said, given = rows(40)
    padded = [""] * (40 - len(last)) + last
    named = [line.replace(",v1,", ",v1b,") if n >= 20 else line for n, line in enumerate(said[1:])]
    lines = [f"{line},{content}" for line, content in zip(named, padded, strict=True)]
    return an_order(folder, [f"{said[0]},content", *lines], given, **more)


def test_a_replay_takes_contents_of_the_file_and_continues_versions(tmp_path):
    contents = [FIRST, *[""] * 19, *[FIRST] * 20]
    replayed = replay_files(order(tmp_path, contents))
    named = [e for e in replayed.result.events if isinstance(e, VersionFirstUsed | VersionRenamed)]
    assert [(event.version, event.content) for event in named] == [("v1", FIRST), ("v1b", FIRST)]
    assert isinstance(named[1], VersionRenamed)


@pytest.mark.parametrize(
    ("contents", "declared", "policy", "problem"),
    [
        ([FIRST, OTHER], {}, "", "another row says cdcdcdcdcdcd…; correct one of them"),
        ([FIRST], {"v1b": OTHER}, "", "--content says cdcdcdcdcdcd…"),
        ([FIRST], {}, f"versions: [{{id: v1b, content: {OTHER}}}]\n", "the policy says cdcdcd"),
        ([FIRST, FIRST], {"v1b": FIRST}, f"versions: [{{id: v1b, content: {FIRST}}}]\n", ""),
    ],
)
def test_a_content_that_differs_elsewhere_is_refused_and_both_are_named(
    tmp_path, contents, declared, policy, problem
):
    request = order(tmp_path, contents, contents=declared)
    if not problem:
        read_request_records(request, parse_policy(POLICY + policy))
        return
    with pytest.raises(ValueError, match="v1b has the content abababababab…, and") as refused:
        read_request_records(request, parse_policy(POLICY + policy))
    assert problem in str(refused.value)
    assert str(refused.value).startswith("predictions.csv: ")


def test_a_text_that_is_no_hash_rejects_its_row_unless_it_is_an_attribute(tmp_path):
    request = order(tmp_path, ["two parcels"])
    records = read_request_records(request, parse_policy(POLICY))
    (row,) = records.rejected.rows(named=True)
    assert (row["line"], row["column"], row["reason"]) == (41, "content", "bad-word")
    assert "--map predictions.attributes=content" in row["detail"]
    request = order(tmp_path, ["two parcels"], column_mappings=("predictions.attributes=content",))
    records = read_request_records(request, parse_policy(POLICY))
    assert records.cases["attribute:content"].to_list()[-1] == "two parcels"
    assert (records.rejected.height, list_file_contents(records)) == (0, {})
