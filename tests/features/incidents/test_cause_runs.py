"""Searches for causes: how many requests wait for them, and whose results are shown."""

from datetime import UTC, datetime
from threading import Event, Thread

from rollout.engine.decide.permissions import Caller
from rollout.features.incidents import incidents
from rollout.features.incidents.incidents import MAX_WAITING, CauseRuns

NOON = datetime(2027, 6, 1, 12, tzinfo=UTC)


def test_of_many_requests_a_few_wait_and_the_others_are_answered_at_once(monkeypatch):
    monkeypatch.setattr(incidents, "PATIENCE", 60.0)
    runs, may_end, answers = CauseRuns(), Event(), []

    def load():
        assert may_end.wait(60)

    def ask(name):
        answers.append(runs.find(Caller(name), "creek", load, at=NOON))

    threads = [Thread(target=ask, args=(f"user-{number}",)) for number in range(MAX_WAITING)]
    for thread in threads:
        thread.start()
    while runs._waiting._value:
        pass
    late = runs.find(Caller("late"), "creek", load, at=NOON)  # all places to wait are taken
    assert late.run is not None
    assert answers == []
    may_end.set()
    for thread in threads:
        thread.join()
    assert [answer.run for answer in answers] == [None] * MAX_WAITING


def test_a_search_of_another_cause_goes_first_and_keeps_its_result(monkeypatch):
    monkeypatch.setattr(incidents, "PATIENCE", 0.05)
    runs, may_end, ana = CauseRuns(), Event(), Caller("ana")
    first = runs.find(ana, "creek", lambda: may_end.wait(60) and "of creek", at=NOON)
    second = runs.find(ana, "lake", lambda: "of lake", at=NOON)
    assert first.run is second.run is not None
    may_end.set()
    assert first.run.wait(10)
    monkeypatch.setattr(incidents, "PATIENCE", 60.0)
    assert runs.find(ana, "lake", lambda: "of lake", at=NOON).loaded == "of lake"
    assert runs.find(ana, "creek", lambda: "anew", at=NOON).loaded == "of creek"
