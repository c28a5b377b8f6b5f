"""The agenda of a replay reads the cells that a slot needs, not all."""

from rollout.engine.decide.scope import Scope
from rollout.engine.slots import fast_forward as agenda_module
from rollout.engine.slots.fast_forward import Agenda, SlotInterest
from rollout.kernel.calendar.instants import Cell, Site
from tests.engine.evidence.histories import a_policy


def test_a_slot_hashes_no_cell_that_waits(monkeypatch):
    monkeypatch.setattr(agenda_module, "list_timed_slots", lambda *_: ())
    sites = tuple(Site(f"s-{number}", "UTC") for number in range(50))
    policy = a_policy(sites=sites)
    busy, scope = Cell("s-7", "always"), Scope()

    def find_next_slot(key, scope, slot):
        return SlotInterest(slot + 1 if key[0] == busy else 1_000)

    agenda = Agenda(policy, find_next_slot)
    agenda.add_keys((Cell(site.id, "always"), "v1") for site in sites)
    assert agenda.find_next_slot(scope, 0) == 1
    hashed, compute_hash = [], Cell.__hash__

    def count_hash(cell):
        hashed.append(cell)
        return compute_hash(cell)

    monkeypatch.setattr(Cell, "__hash__", count_hash)
    for slot in range(2, 22, 2):
        assert agenda.find_next_slot(scope, slot) == slot + 1
    assert {str(cell) for cell in hashed} == {str(busy)}
