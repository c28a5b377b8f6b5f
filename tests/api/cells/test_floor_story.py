"""A cell in a running service opens at a floor, then at a lower one, and an alarm raises it."""

from dataclasses import replace
from math import inf

import polars as pl
import pytest

from rollout.engine.events import Narrowed, Widened
from rollout.features.records.record_import import import_records
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.tick_passes import Ticker
from tests.api.field_box import steady
from tests.engine.decide.test_floor_assignments import read_floor
from tests.engine.slots.test_confidence_floors import START
from tests.live.test_live import live, replayed, written
from tests.live.test_live_floors import AFTER, MAIL_POLICY, build_mail

__all__ = ["steady"]
pytestmark = pytest.mark.simulation
MAIL = "/v1/rollouts/mail"
CONFIDENCES = (0.5, 0.7, 0.85, 0.95)
KEYS = [f"q{number}" for number in range(30)]
EVERY = 10
"""Slots between the questions and imports of the story."""
TEXT = MAIL_POLICY.replace("blind: 100%", "blind: 60%")


class Office:
    """A running service whose records come in as they are made, asked by machines and users."""

    def __init__(self, database, client, clock, history):
        self.database, self.client, self.clock, self.history = database, client, clock, history
        self.cells, self.first, self.imported = {}, None, START - TICK

    def before_slot(self, slot, at):
        """Import what was recorded, and ask who decides cases of each confidence."""
        self.first = slot if self.first is None else self.first
        if (slot - self.first) % EVERY:
            return None
        self.clock.at = at
        self.clock.since_boot += EVERY * TICK.total_seconds()  # no answer from before is left
        later = at + EVERY * TICK
        if not select(self.history, self.imported, later).cases.is_empty():
            import_records(self.database, "mail", select(self.history, self.imported, later), at)
        self.imported = later
        self.ask(at)
        return Ticker(self.database, "mail", "one")

    def ask(self, at):
        """Compare the service's answers with what the ledger opens, read by hand."""
        events = written(self.database, "mail")
        level, floor = read_floor(events, at)
        questions = [
            {"site": "lisbon", "at": at.isoformat(), "version": "v1", "key": f"{key}-{at}"}
            | {"confidence": confidence}
            for confidence in CONFIDENCES
            for key in KEYS
        ]
        body = {"questions": questions}
        answers = self.client.by("ingest").post(f"{MAIL}/assignments", json=body).json()
        shown = {
            question["confidence"]
            for question, answer in zip(questions, answers["answers"], strict=True)
            if answer["exposure"] == "assisted"
        }
        assert shown == {c for c in CONFIDENCES if level and c >= floor}
        self.cells[floor] = self.read_cell()

    def read_cell(self):
        """Return the cell's stage and floor."""
        viewer = self.client.by("viewer")
        status = viewer.get(f"{MAIL}/cells/lisbon/always").json()["status"]
        return status["stage"], status["confidence_floor"]


TICK = parse_policy(TEXT).tick


def select(history, after, until):
    """Return the cases of a span, with what was recorded of them."""
    occurred = pl.col("occurred_at")
    cases = history.cases.filter((occurred > after) & (occurred <= until))
    known = {
        kind: getattr(history, kind).join(cases.select("case_key"), on="case_key", how="semi")
        for kind in ("predictions", "decisions")
    }
    return replace(history, cases=cases, **known)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_the_floor_of_a_cell_at_every_door_as_its_evidence_changes(
    database, client, clock, tmp_path
):
    history = build_mail(tmp_path)
    slots, _ = replayed(history, parse_policy(TEXT), AFTER)
    office = Office(database, client, clock, history)
    events = live(database, TEXT, slots, AFTER, before_slot=office.before_slot)
    opened = [e.confidence_floors[0] for e in events if isinstance(e, Widened)]
    raised = [e.confidence_floor for e in events if isinstance(e, Narrowed)]
    assert (opened, raised) == (["0.8", "0.6"], ["0.8"])
    assert office.cells[inf] == ("shadow", None)
    assert office.cells[0.8] == ("supervised", 0.8)
    assert office.cells[0.6] == ("supervised", 0.6)
    listed = client.by("viewer").get(f"{MAIL}/proposals?state=applied").json()["items"]
    assert [item["confidence_floors"][0] for item in listed] == [0.6, 0.8]  # newest first
    assert "lisbon for cases of confidence 0.6 or more until" in listed[0]["allows"]
