"""Whoever decides first is unsure: guards count what a colleague says next."""

import pytest

from tests.data.databases import on_sqlite

pytestmark = pytest.mark.slow


@on_sqlite
def test_an_unsure_first_reviewer_hides_no_disagreement_from_guards(widened_desk):
    wrong = {"verdict": "high", "unsure_first": True}
    assert widened_desk.pass_hours(15, wrong, wrong) == ["Narrowed"]
