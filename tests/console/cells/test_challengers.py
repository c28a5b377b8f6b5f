"""Versions side by side: nobody's evidence stands under another's name."""

from types import SimpleNamespace

from api.cells import pages
from api.cells.pages import build_challenger_comparisons
from rollout.kernel.calendar.instants import Cell

CREEK = Cell("creek", "night")


def compare(monkeypatch, holder, versions):
    monkeypatch.setattr(pages, "build_measure_readings", lambda facts, *_: (f"of {facts.version}",))
    evidence = [SimpleNamespace(version=version, next_step="more") for version in versions]
    summary = SimpleNamespace(cell=CREEK, evidence=evidence, passed_thresholds=())
    policy = SimpleNamespace(charter=SimpleNamespace(cost_in="EUR"))
    scope = SimpleNamespace(get_holder=lambda _cell: holder)
    page = SimpleNamespace(rows=[summary], state=SimpleNamespace(scope=scope, policy=policy))
    return [
        (found.acting, found.acting_reading, found.version, found.challenger_reading)
        for found in build_challenger_comparisons(page)
    ]


def test_where_humans_act_every_version_is_a_challenger_with_its_own_evidence(monkeypatch):
    assert compare(monkeypatch, None, ["v1", "v2"]) == [
        ("", None, "v1", "of v1"),
        ("", None, "v2", "of v2"),
    ]


def test_an_acting_version_stands_beside_its_challengers(monkeypatch):
    assert compare(monkeypatch, "v1", ["v1", "v2"]) == [("v1", "of v1", "v2", "of v2")]


def test_a_single_version_is_compared_with_none(monkeypatch):
    assert compare(monkeypatch, None, ["v1"]) == []
    assert compare(monkeypatch, "v1", ["v1"]) == []
