"""The auditor's verifier recomputes what the product does, row by row, on random histories."""

from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from rollout.engine.decide.commands import AcceptRestore, StopAfterRollback, StopChangedCells
from rollout.engine.events import (
    CasesErased,
    DamageCleared,
    NameErased,
    RecordsCounted,
    RecordsPurged,
    ReportSealed,
)
from rollout.kernel.facts import LOST_HEAD, Trigger
from tests.engine.decide.test_promises import PEOPLE, Promises
from tests.engine.slots.stories import a_course, a_history, a_policy, a_story, prepared, seeded
from tests.ledger_verifier import compare_histories, write_ledger

FEW = 2
DIGEST = "ab" * 32
ALWAYS_MET = {  # a search without one of these would prove little; the rest is in `eventful`
    "Widened", "Renewed", "TakenOver", "Narrowed", "Suspended", "GrantExpired", "Stopped",
    "Resumed", "PolicyApplied", "ProposalVoided", "VersionRetired", "EraBegan", "ClockCorrected",
    "RecordsPurged", "CasesErased", "NameErased",
}  # fmt: skip
HISTORY = {
    RecordsPurged: {"tables": ("cases",), "counts": (3,), "digest": DIGEST},
    CasesErased: {"keys": (DIGEST,), "tables": ("cases",), "counts": (1,), "reason": "asked"},
    NameErased: {"pseudonym": "r-1", "name_hash": DIGEST, "tables": (), "counts": ()},
    RecordsCounted: {"records": 7, "digest": DIGEST},
    ReportSealed: {"report": "week", "number": 1, "state": "final", "sha256": DIGEST},
    DamageCleared: {"reason": "checked"},
}
SPANS = {RecordsPurged: ("before",), ReportSealed: ("since", "until")}


class VerifiedHistory(Promises):
    """Histories of all commands, with restores, erasures and purges, ended by a comparison."""

    kinds = None  # a Counter of all histories' events

    @precondition(lambda self: len(self.events) > 40 and self.scope.era < 3)
    @rule(by=st.sampled_from(PEOPLE), known_era=st.integers(0, 4))
    def accept_restore(self, by, known_era):
        self.ask(AcceptRestore(at=self.clock, by=by, reason="the disk", known_era=known_era))

    @precondition(lambda self: len(self.events) > 40 and self.scope.era < 3)
    @rule()
    def roll_back(self):
        self.ask(
            StopAfterRollback(
                at=self.clock,
                era=self.scope.era,
                trigger=Trigger(LOST_HEAD, {"revision": "9"}),
                about="box",
            )
        )

    @precondition(lambda self: len(self.events) > 40)
    @rule(place=st.integers(0, 9))
    def find_changed_evidence(self, place):
        cells = self.policy.cells
        cell = cells[place % len(cells)]
        reason = "31 held, 32 counted"
        self.ask(StopChangedCells(at=self.clock, cells=(cell,), cell=cell, reason=reason))

    @precondition(lambda self: self.events)
    @rule(kind=st.sampled_from(list(HISTORY)))
    def write_history(self, kind):
        at = max(self.clock, self.scope.at)
        spans = {name: at - timedelta(days=9) for name in SPANS.get(kind, ())}
        self.keep(kind(at=at, by="policy", **HISTORY[kind], **spans))

    def teardown(self):
        policies = {name: rules.policy() for name, rules in self.policies.items()}
        compare_histories(write_ledger("r", self.events), policies)
        if self.kinds is not None:
            self.kinds.update(type(event).__name__ for event in self.events)


@pytest.mark.parametrize("examples", [FEW, pytest.param(400, marks=pytest.mark.simulation)])
def test_a_stranger_recomputes_what_commands_did(examples):
    machine = type("History", (VerifiedHistory,), {"kinds": Counter()})
    phases = [Phase.explicit, Phase.generate, Phase.shrink]
    bounds = settings(
        max_examples=examples,
        stateful_step_count=50,
        deadline=None,
        derandomize=True,
        phases=phases,
    )
    run_state_machine_as_test(machine, settings=bounds)
    if examples > FEW:
        assert set(machine.kinds) >= ALWAYS_MET


def replay_story(seed):
    """Return the policy and the events of a replayed story."""
    pick = seeded(seed)
    policy = a_policy(pick)
    story, course = a_story(pick, seed), a_course(pick, policy)
    made = prepared(a_history(story, policy), policy, course.salt)
    return policy, made.run(course).events


@pytest.mark.slow
@pytest.mark.parametrize(
    "seeds",
    [(39, 61), pytest.param(range(100, 160), marks=pytest.mark.simulation)],
    ids=["few", "many"],
)
def test_a_stranger_recomputes_what_evidence_did(seeds):
    for seed in seeds:
        policy, events = replay_story(seed)
        compare_histories(write_ledger("story", list(events)), {policy.hash: policy})
