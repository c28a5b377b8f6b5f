"""An import declares contents of versions: the ledger names them, and another one is refused."""

from dataclasses import replace

import polars as pl
import pytest

from rollout.engine.decide.commands import Actor
from rollout.features.records.record_import import (
    OtherContentError,
    VersionStatements,
    import_records,
)
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from rollout.terminal.remote import parse_version_content
from tests.data.conftest import database, other, url
from tests.data.databases import on_sqlite
from tests.engine.evidence.histories import (
    HOUR,
    START,
    cases,
    decisions,
    hour,
    predictions,
    records,
)

__all__ = ["database", "other", "url"]

FIRST, OTHER = "ab" * 32, "cd" * 32
POLICY = """
rollout: story
timezone: UTC
levers: [{id: alarm, labels: [bear, none]}]
sites: [creek]
evidence: {unit: case, grace: 1h}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
"""


def bring(database, key, version="v1", content=FIRST, **trained_until):
    """Import one case of a version."""
    answer = predictions((key, "bear", {"version": version}))
    frames = records(cases((key, 1)), answer, decisions((key, "bear")))
    contents = {version: content} if content else {}
    stated = VersionStatements(trained_until, contents)
    return import_records(database, "story", frames, hour(1), stated)


def state_of(database):
    with database.begin_read() as transaction:
        return load_rollout_state(transaction, "story")


@pytest.fixture(autouse=True)
def _story(database):
    apply_policy(database, POLICY, Actor("zoe"), START)


@on_sqlite
def test_a_version_in_a_file_has_the_content_that_was_declared(database):
    bring(database, "c1")
    bring(database, "c2", content="", v1=START)
    bring(database, "c3", "v1b")
    Ticker(database, "story", "one").tick(START + 9 * HOUR)
    state = state_of(database)
    assert (state.scope.versions["v1"].content, state.scope.aliases) == (FIRST, {"v1b": "v1"})
    assert state.versions["v1"].info.content == FIRST, "an end of training leaves it"
    assert state.versions["v1"].info.trained_until == START


@on_sqlite
@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        ({"v1": OTHER}, "nothing was imported: v1 has the content abababababab…, not cdcd"),
        (
            {"v2": OTHER},
            "names v2, of which the file has no prediction; its versions: v1",
        ),
    ],
)
def test_another_content_is_refused_before_anything_is_stored(database, declared, problem):
    bring(database, "c1")
    frames = records(cases(("c2", 1)), predictions(("c2", "bear")), decisions(("c2", "bear")))
    with pytest.raises(OtherContentError) as refused:
        import_records(database, "story", frames, hour(1), VersionStatements(contents=declared))
    assert problem in str(refused.value)
    assert bring(database, "c2")["case"] == {"accepted": 1}, "it was not there"


@on_sqlite
def test_a_column_of_the_file_declares_contents_as_the_option_does(database):
    def read(key, version, content):
        answer = predictions((key, "bear", {"version": version}))
        frames = records(cases((key, 1)), answer, decisions((key, "bear")))
        column = pl.lit(content, pl.String).alias("content")
        return replace(frames, predictions=frames.predictions.with_columns(column))

    for key, version, content in (("c1", "v1", FIRST), ("c2", "v1", None), ("c3", "v1b", FIRST)):
        import_records(database, "story", read(key, version, content), hour(1))
    with pytest.raises(OtherContentError, match=r"v1 has the content ababab.*, not cdcdcd"):
        import_records(database, "story", read("c4", "v1", OTHER), hour(1))
    Ticker(database, "story", "one").tick(START + 9 * HOUR)
    state = state_of(database)
    assert (state.scope.versions["v1"].content, state.scope.aliases) == (FIRST, {"v1b": "v1"})


@pytest.mark.parametrize("text", ["v1", "=ab", "v1=AB", f"v1={OTHER[:-1]}"])
def test_a_content_in_another_form_is_an_error_that_shows_the_form(text):
    with pytest.raises(ValueError, match=r"VERSION=SHA256|is no SHA-256"):
        parse_version_content(text)
    assert parse_version_content(f"a=b={FIRST}") == ("a=b", FIRST)
