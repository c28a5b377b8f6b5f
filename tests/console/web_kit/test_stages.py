"""Codes and patterns of stages."""

from api.web_kit.cell_view import build_stage_markers, build_withheld_marker
from rollout.features.reports.pages.timeline_layout import compute_stage_codes
from rollout.kernel.policy_files.reader import parse_policy
from tests.api.bears import POLICY

SHARED = """
rollout: shop
timezone: UTC
levers: [{id: price, labels: [low, high]}]
sites: [kiosk]
evidence: {unit: case}
stages: [{id: part, share: 40%}, {id: autonomous, audit: 10%}]
gates: [{to: part, require: [{measure: agreement, at_least: 80%}]}]
"""


def test_each_stage_has_its_code_and_pattern():
    marks = build_stage_markers(parse_policy(POLICY))
    assert [(m.code, m.pattern) for m in marks.values()] == [("Sh", "0"), ("Su", "1"), ("Au", "2")]
    assert build_withheld_marker(marks).code == "Sh"


def test_stages_that_begin_alike_get_a_third_letter():
    assert compute_stage_codes(("shadow", "shared", "autonomous")) == {
        "shadow": "Shad",
        "shared": "Shar",
        "autonomous": "Auto",
    }


def test_a_stage_with_a_share_says_what_it_draws():
    marks = build_stage_markers(parse_policy(SHARED))
    text = "model decides 40 % of cases, drawn at random; humans the rest"
    assert [mark.text for mark in marks.values()] == ["humans decide", text, "model decides"]
