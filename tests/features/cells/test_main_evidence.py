"""Of several versions in shadow, a cell shows the one that waits for somebody or has units."""

from types import SimpleNamespace

from rollout.features.cells.cells import find_main_evidence


def version_of(*evidence, acting=None):
    versions = [
        SimpleNamespace(version=name, proposal=proposal, attempt_number=number)
        for name, proposal, number in evidence
    ]
    return find_main_evidence(versions, acting).version


def test_a_version_that_only_a_question_has_named_hides_no_proposal():
    assert version_of(("v1", "P-2", 1), ("v99", None, 0)) == "v1"
    assert version_of(("v1", "P-2", 1), ("v2", None, 2)) == "v1"


def test_a_version_with_units_comes_before_newer_ones_without():
    assert version_of(("v1", None, 1), ("v2", None, 2), ("v99", None, 0)) == "v2"


def test_the_acting_version_comes_first():
    assert version_of(("v1", None, 1), ("v2", "P-2", 2), acting="v1") == "v1"


def test_without_units_the_newest_is_shown():
    assert version_of(("v1", None, 0), ("v2", None, 0)) == "v2"
    assert find_main_evidence((), None) is None
