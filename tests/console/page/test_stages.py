"""Codes and patterns of stages."""

from api.console.page.stages import _codes, marks_of, withheld
from rollout.formats.policy.reader import load_policy
from tests.api.bears import POLICY


def test_each_stage_has_its_code_and_pattern():
    marks = marks_of(load_policy(POLICY))
    assert [(m.code, m.look) for m in marks.values()] == [("Sh", "0"), ("Su", "1"), ("Au", "2")]
    assert withheld(marks).code == "Sh"


def test_stages_that_begin_alike_get_a_third_letter():
    assert _codes(("shadow", "shared", "autonomous")) == {
        "shadow": "Shad",
        "shared": "Shar",
        "autonomous": "Auto",
    }
