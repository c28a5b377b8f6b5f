"""Whoever decides first is unsure: guards count what a colleague says next."""

import pytest

from tests.data.databases import on_sqlite
from tests.live.guarded_desk import RIGHT, WIDENED

pytestmark = pytest.mark.slow


@on_sqlite
def test_an_unsure_first_reviewer_hides_no_disagreement_from_guards(desk):
    assert desk.pass_hours(12, RIGHT, RIGHT) == WIDENED
    wrong = {"verdict": "high", "unsure_first": True}
    assert desk.pass_hours(15, wrong, wrong) == ["Narrowed"]
