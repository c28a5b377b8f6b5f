"""The text of `rollout status`: a stage, and for which cases it holds."""

import pytest

from rollout.features.cells.cli import format_status

CELL = {
    "site": "creek",
    "window": "night",
    "stage": "autonomous",
    "version": "v7",
    "suspended_by": [],
    "stops": [],
    "until": None,
    "next_step": "nothing more",
    "confidence_floor": None,
    "model_share": 1.0,
}
STATUS = {
    "rollout": {
        "name": "bears",
        "revision": 3,
        "policy": 1,
        "ticked_at": None,
        "pending": 0,
        "undelivered": 0,
    },
    "proposals": [],
    "stops": {"items": []},
}


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"confidence_floor": 0.97}, "autonomous by v7 for cases of confidence 0.97 or more"),
        ({"model_share": None}, "autonomous by v7\n"),
        ({}, "autonomous by v7\n"),
    ],
)
def test_the_floor_of_a_stage_is_said(more, line):
    assert line in format_status(STATUS | {"cells": [CELL | more]}) + "\n"


def test_cells_that_differ_in_their_floor_alone_have_lines_of_their_own():
    cells = [CELL | {"confidence_floor": 0.6}, CELL | {"site": "lake", "confidence_floor": 0.97}]
    assert "creek · night, lake · night" not in format_status(STATUS | {"cells": cells})
