"""The program broken on purpose so that a promise breaks, and the scene that tells each time.

So it is seen that the machine and its checks would notice.
"""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from unittest import mock

from rollout.engine.decide import approvals, decider
from rollout.engine.decide import decider as open_proposals
from rollout.engine.decide.assignment import Permit
from rollout.engine.decide.scope import Grant, ProposalState, Scope
from rollout.engine.records import policy_actions
from rollout.features.reviews import decisions
from rollout.live.service import PermitSigner
from rollout.live.state_cache import StateCache
from tests.promises import live_boxes, live_scenes


@dataclass(frozen=True)
class Mutant:
    """One way to break the program.

    Attributes:
        name: what is broken.
        where, what: the attribute that is replaced.
        made: gives the replacement, from the original.
        scene: which scene of `live_scenes` fails of it.
    """

    name: str
    where: object
    what: str
    made: Callable
    scene: Callable

    def __post_init__(self):
        """Fail where the tests are collected if the attribute has moved."""
        getattr(self.where, self.what)

    @contextmanager
    def applied(self):
        """Break the program within a block."""
        with ExitStack() as stack:
            right = getattr(self.where, self.what)
            stack.enter_context(mock.patch.object(self.where, self.what, self.made(right)))
            yield


def _always(answer):
    return lambda _right: lambda *_args, **_more: answer


def _whatever_was_shown(right):
    def approved_before(command, proposal, at):
        return right(replace(command, evidence_hash=proposal.evidence_hash), proposal, at)

    return approved_before


def _any_text(right):
    """Accept a permit without checking signature or subject."""

    def read(self, text, *about):
        parts = text.split(".")
        if right(self, text, *about) or len(parts) not in {7, 8}:
            return right(self, text, *about)
        issued = self.clock.now() - timedelta(seconds=1)
        return Permit(parts[2], int(parts[3]), issued, timedelta(minutes=1))

    return read


def _fills_by_one(_right):
    return property(lambda self: bool(self.approvals))


def _asked_for_nothing(_right):
    return property(lambda _self: True)


def _claimed(right):
    return lambda kind, exposure, claims: (
        claims if claims == "blind" else right(kind, exposure, claims)
    )


SCENES = live_scenes
MUTANTS = (
    Mutant("lapse only by tick", Grant, "is_valid", _always(answer=True), SCENES.expired),
    Mutant(
        "approval without hash",
        approvals,
        "_is_already_approved",
        _whatever_was_shown,
        SCENES.widened,
    ),
    Mutant(
        "approver is raiser",
        approvals,
        "_check_can_approve",
        _always(None),
        SCENES.raised_by_oneself,
    ),
    Mutant("machines approve", decider, "_require_user", _always(None), SCENES.widened),
    Mutant(
        "one person fills all places", ProposalState, "is_approved", _fills_by_one, SCENES.widened
    ),
    Mutant(
        "applied without approval", ProposalState, "is_approved", _asked_for_nothing, SCENES.widened
    ),
    Mutant(
        "applied on evidence that turned",
        open_proposals,
        "_find_void_cause",
        _always(None),
        SCENES.turned,
    ),
    Mutant(
        "a replica goes on from memory",
        StateCache,
        "_is_fresh",
        _always(answer=True),
        SCENES.stopped,
    ),
    Mutant("a stop withholds nothing", Scope, "is_stopped", _always(answer=False), SCENES.stopped),
    Mutant("a permit is not checked", PermitSigner, "read_permit", _any_text, SCENES.acted),
    Mutant(
        "a lease never ends",
        Permit,
        "allows",
        _always(answer=True),
        SCENES.narrow_after_answer,
    ),
    Mutant(
        "any action will do",
        policy_actions,
        "is_policy_action",
        _always(answer=True),
        SCENES.acted,
    ),
    Mutant(
        "an offline box ignores its lease",
        live_boxes,
        "compute_time_left",
        _always(timedelta(minutes=1)),
        SCENES.offline,
    ),
    Mutant(
        "a clock far off is trusted",
        StateCache,
        "is_clock_skewed",
        lambda _: property(lambda _self: False),
        SCENES.askew,
    ),
    Mutant("a claim decides the exposure", decisions, "compute_exposure", _claimed, SCENES.judged),
    Mutant("a page shows it", decisions, "_load_blind_reviews", _always({}), SCENES.judged),
    Mutant("guards never alarm", decider, "apply_alarms", _always(None), SCENES.unwatched),
    Mutant("a silent site goes on", decider, "apply_alarms", _always(None), SCENES.silent),
)
