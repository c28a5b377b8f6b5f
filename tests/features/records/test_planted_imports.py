"""An import counts a declaration from when the service received it, whatever a file says."""

import pytest

from rollout.features.records.planted_cases import (
    PlantingRequest,
    declare_planted_cases,
    split_imported_cases,
)
from rollout.features.replay.requests import LateDeclarationError
from tests.engine.evidence import histories
from tests.engine.evidence.histories import HOUR, cases, decisions, outcomes, predictions, records
from tests.features.review_room import DAN, START, Room

FIRST = int((START - histories.START) / HOUR)
HISTORY = records(
    cases(*((key, FIRST + 1) for key in ("p1", "n1"))),
    predictions(*((key, "bear", {"at": FIRST + 1}) for key in ("p1", "n1"))),
    decisions(*((key, "bear", {"at": FIRST + 2}) for key in ("p1", "n1"))),
    outcomes(),
)


def declare(room, key, at):
    request = PlantingRequest(frozenset([key]), "a bear at the bin")
    declare_planted_cases(room.database, DAN, "bears", request, at)


def test_cases_are_planted_that_were_declared_before_their_answers(database):
    room = Room(database)
    importing = (database, room.stood.rollout, HISTORY, None, START + 3 * HOUR)
    assert split_imported_cases(*importing).planted is None
    declare(room, "p1", START)
    apart = split_imported_cases(*importing)
    assert apart.cases["case_key"].to_list() == ["n1"]
    assert apart.planted.decisions["case_key"].to_list() == ["p1"]
    declare(room, "n1", START + 1.5 * HOUR)  # after its prediction, which lies in the file
    with pytest.raises(LateDeclarationError, match=r"n1 has an answer of 2027-06-01 13:00 UTC"):
        split_imported_cases(*importing)
