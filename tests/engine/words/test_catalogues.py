"""The catalogues of events and states are complete, and name nothing that doesn't exist."""

from collections import Counter
from dataclasses import fields, replace
from string import Formatter

import pytest

from rollout.engine.events import (
    EVENT_TYPES,
    Approved,
    GrantExpired,
    VersionFirstUsed,
    VersionRetired,
    Widened,
)
from rollout.engine.ledger.access_events import ACCESS_KINDS
from rollout.engine.words import event_kinds, event_text
from rollout.engine.words.event_text import (
    ACCESS_EVENT_TEXTS,
    EVENT_PHRASES,
    EVENT_TEXTS,
    CitedProposals,
    EventDescriber,
    describe_access_event,
    describe_mark,
    phrase_event,
)
from rollout.engine.words.state_text import CELL_STATES, CLOSED_PROPOSALS, PROPOSAL_KINDS
from tests.factories import NOON, policy


@pytest.mark.parametrize(
    ("kinds", "describe", "texts"),
    [
        (EVENT_TYPES, event_text._describe, EVENT_TEXTS),
        (ACCESS_KINDS, describe_access_event, ACCESS_EVENT_TEXTS),
    ],
)
def test_each_kind_of_event_has_one_description_of_its_own(kinds, describe, texts):
    described = Counter([*describe.registry, *texts])
    assert set(kinds.values()) <= set(described)
    assert set(described.values()) == {1}


SHARED_VALUES = {
    "phrase": set(),
    "simulated": set(),
    "readings": {"proposal"},
    "approvers": {"proposal"},
    "alarms": {"alarms"},
    "because": {"reason", "note"},
    "cases": {"cases"},
    "closing": {"cause", "reason"},
    "needs": {"needs"},
    "incidents": {"incidents"},
    "rows": {"counts"},
    "files": {"files"},
    **{name: {name} for name in event_text.TIME_FIELDS},
    "floor": {"acting_floor"},
    "drill": {"drill"},
    "version": {"version"},
    "of_version": {"version"},
}
"""What texts say of several kinds, and the fields of which each needs one."""


@pytest.mark.parametrize("texts", [EVENT_TEXTS, EVENT_PHRASES, ACCESS_EVENT_TEXTS])
def test_each_text_of_an_event_names_fields_that_its_kind_has(texts):
    for kind, text in texts.items():
        attributes = {*dir(kind), *kind.__dataclass_fields__}
        names = {name for _, name, _, _ in Formatter().parse(text) if name}
        assert names <= {f"event.{name}" for name in attributes} | SHARED_VALUES.keys()
        for name in names & SHARED_VALUES.keys():
            assert not SHARED_VALUES[name] or SHARED_VALUES[name] & attributes


@pytest.mark.parametrize(
    ("groups", "kinds"),
    [
        (event_kinds.EVENT_GROUPS, EVENT_TYPES),
        (event_kinds.ACCESS_EVENT_GROUPS, ACCESS_KINDS),
    ],
)
def test_each_group_has_kinds_that_exist_and_none_is_in_two(groups, kinds):
    counts = Counter(kind for _, group in groups.values() for kind in group)
    assert set(counts) <= set(kinds)
    assert set(counts.values()) == {1}


def test_every_state_in_which_a_proposal_ends_has_a_text():
    assert set(CLOSED_PROPOSALS) == {kind.closing_state for kind in EVENT_TYPES.values()} - {""}


def test_each_kind_of_proposal_fills_its_texts():
    values = {"cell": "creek · day", "to": "supervised", "version": "v7", "about": "S-1"}
    titles = {kind: words.title.format(**values) for kind, words in PROPOSAL_KINDS.items()}
    assert titles["widening"] == "Widen creek · day to supervised"
    subjects = [words.subject.format(**values) for words in PROPOSAL_KINDS.values()]
    assert not [text for text in [*titles.values(), *subjects] if "{" in text]


def test_tags_of_cells_are_told_apart():
    tags = [state.tag for state in CELL_STATES.values()]
    assert len(set(tags)) == len(tags)
    assert all(state.meaning.endswith(".") for state in CELL_STATES.values())


@pytest.mark.parametrize(
    "event",
    [
        VersionFirstUsed(at=NOON, by="ana", version="v7"),
        VersionRetired(at=NOON, by="ana", version="v7"),
        Approved(at=NOON, by="ana", proposal="P-1", groups=(), evidence_hash="ab"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_timelines_mark_is_the_begin_of_the_events_description(event):
    describer = EventDescriber(policy(), CitedProposals())
    phrase = describe_mark(event)
    assert phrase
    assert event_text.describe_event(1, event, describer).text.startswith(phrase)


def test_each_phrase_is_of_a_kind_of_event():
    assert set(phrase_event.registry) - {object} <= set(EVENT_TYPES.values())


@pytest.mark.parametrize(
    ("kind", "named", "located"),
    [
        (Widened, "v2 widened to supervised", "widened to supervised"),
        (GrantExpired, "v2: grant of supervised expired", "grant of supervised expired"),
    ],
)
def test_an_event_whose_version_its_location_names_is_said_without_it(kind, named, located):
    names = {each.name for each in fields(kind) if each.init}
    values = {"acting_floor": "", "version": "v2", "stage": "supervised", "to_stage": "supervised"}
    event = kind(**{name: values.get(name) for name in names})
    assert phrase_event(event) == named
    assert phrase_event(replace(event, version="")) == located
