"""A rollout with grants, on a database: its events are appended as a tick would write them."""

from rollout.data.ledger.ledger import CommitTimes, Ledger
from rollout.data.records.versions import VersionInfo, VersionStore
from rollout.engine.decide.commands import Actor
from rollout.engine.events import ProposalRaised, Stopped, VersionFirstUsed, Widened
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.statistics.sampling import compute_sampling_value
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from tests.data.snapshots import filled_once
from tests.factories import DAY, NOON

NAME = "bears"
SALT = bytes(32)
POLICY = """
rollout: bears
timezone: UTC
levers:
  - id: alarm
    labels: [bear, none]
    actions: {bear: siren, none: nothing}
    answer_within: 2m
    unanswered: siren
sites: [creek, {id: lake, lease: 12h}, dale]
windows: [{id: day, hours: "08:00-20:00"}, {id: night, hours: 24/7}]
evidence: {unit: case}
gates:
  - {to: supervised, require: [{measure: agreement, at_least: 95%}]}
  - {to: autonomous, require: [{measure: agreement, at_least: 97%}]}
lease: 1m
"""


@filled_once
def set_up_field(database, at=NOON - DAY, policy=POLICY, version="v1", service_salt=SALT):
    """Put the policy in force and let a version be seen."""
    apply_policy(database, policy, Actor("zoe"), at, salt=SALT, service_salt=service_salt)
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, NAME)
        VersionStore(transaction, state.rollout).record_info(VersionInfo(version, "test"), at=at)
    append(database, VersionFirstUsed(at=at, by="policy", version=version))


def append(database, *events):
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, NAME)
        CommitTimes(transaction, state.rollout).store(state.scope.revision + 1, events[-1].at)
        return Ledger(transaction, state.rollout).append(events, after=state.scope.revision)


@filled_once
def widen(database, *cells, to="autonomous", version="v1", at=NOON - DAY, lasts=90 * DAY):
    """Give cells every stage up to one."""
    rungs = ("supervised", "autonomous")
    rungs = rungs[: rungs.index(to) + 1]
    fields = {"at": at, "version": version, "until": at + lasts}
    append(database, *(build_widening(cell, rung, **fields) for cell in cells for rung in rungs))


def build_widening(cell, to, *, at, proposal="P-0", version="v1", until=NOON + 89 * DAY):
    cell = Cell(*cell)
    return Widened(
        at=at, by="policy", cell=cell, version=version, to_stage=to, until=until, proposal=proposal
    )


@filled_once
def stop(database, *cells, at=NOON, number=1, **more):
    cells = tuple(Cell(*cell) for cell in cells)
    append(database, Stopped(at=at, by="bo", stop=f"S-{number}", cells=cells, **more))


@filled_once
def autonomous(database, at=NOON - DAY):
    """Return a rollout in which creek and lake are autonomous by day, dale is supervised."""
    set_up_field(database, at)
    widen(database, ("creek", "day"), ("lake", "day"), at=at)
    widen(database, ("dale", "day"), to="supervised", at=at)


@filled_once
def autonomous_by_proposals(database, at=NOON - DAY):
    """Do as `autonomous`, with a proposal for each stage, so that `doctor` finds nothing."""
    set_up_field(database, at)
    steps = ("creek", "supervised"), ("creek", "autonomous")
    steps += ("lake", "supervised"), ("lake", "autonomous"), ("dale", "supervised")
    for number, (site, stage) in enumerate(steps, 1):
        raised = ProposalRaised(
            at=at,
            by="policy",
            proposal=f"P-{number}",
            kind="widening",
            expires_at=at + DAY,
            needs=(),
            evidence_hash="",
            cell=Cell(site, "day"),
            version="v1",
            to_stage=stage,
        )
        widening = build_widening((site, "day"), stage, at=at, proposal=raised.proposal)
        append(database, raised, widening)


def question(key="c1", site="creek", **changed):
    """Return a question as JSON."""
    question = {"site": site, "at": NOON.isoformat(), "key": key, "version": "v1"}
    return {name: value for name, value in (question | changed).items() if value is not None}


def keys(share, *, below=True, purpose="stage"):
    """Return keys whose draw lies below a share, or not."""
    drawn = ((str(n), compute_sampling_value(SALT, purpose, str(n))) for n in range(1_000))
    return [key for key, number in drawn if (number < share) == below]
