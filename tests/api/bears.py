"""A rollout of two sites by two windows for tests of the API: proposals without records."""

from rollout.engine.decide.commands import Actor, AddVersion, ApproveProposal, Tick
from rollout.kernel.calendar.instants import Cell
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command, load_rollout_state
from tests.data.snapshots import filled_once
from tests.factories import MET

V1 = "/v1/rollouts/bears"
CREEK, LAKE = Cell("creek", "day"), Cell("lake", "day")
POLICY = """
rollout: bears
timezone: UTC
levers:
  - id: alarm
    labels: [bear, none]
    actions: {bear: siren, none: nothing}
sites: [creek, {id: lake, lease: 12h}]
windows: [{id: day, hours: "06:00-20:00"}, {id: night, hours: 24/7}]
evidence: {unit: case, outside: blind}
gates:
  - {to: supervised, require: [{measure: agreement, at_least: 95%}],
     approvals: [operator, operator]}
  - {to: autonomous, require: [{measure: agreement, at_least: 97%}], approvals: [operator, safety]}
guards:
  - {measure: agreement, at_least: 93%}
takeover: shadow
"""
LOOSER = POLICY.replace("95%", "94%")
STRICTER = POLICY.replace("97%", "98%")


@filled_once
def founded(database, at, *versions):
    """Apply the policy and see the versions, `v1` by default."""
    apply_policy(database, POLICY, Actor("zoe"), at, salt=bytes(32), service_salt=bytes(32))
    for version in versions or ("v1",):
        execute_command(database, "bears", lambda _, v=version: AddVersion(at=at, version=v))


@filled_once
def tick(database, at, *, cells=(CREEK,), of=MET, version="v1", others=None):
    """Decide on made-up evidence of some cells, as a tick would."""
    evidence = {(cell, version): of for cell in cells} | (others or {})
    return execute_command(
        database,
        "bears",
        lambda state: Tick(at=at, evidence=evidence, pending_policies=state.pending),
    )


@filled_once
def approved(database, at, *people):
    """Approve everything that is open, and apply it."""
    scope = scope_of(database)
    for proposal in scope.proposals.values():
        for person in people or (Actor("dan"), Actor("eve")):
            yes = ApproveProposal(
                at=at, by=person, proposal=proposal.id, evidence_hash=proposal.evidence_hash
            )
            execute_command(database, "bears", lambda _, yes=yes: yes)
    return tick(database, at, cells=())


@filled_once
def widened(database, at, *cells):
    """Bring cells to supervised."""
    tick(database, at, cells=cells or (CREEK,))
    approved(database, at)
    assert scope_of(database).get_holder((cells or (CREEK,))[0]) == "v1"


def scope_of(database):
    with database.begin_read() as transaction:
        return load_rollout_state(transaction, "bears").scope
