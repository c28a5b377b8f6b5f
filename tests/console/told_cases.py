"""Cases of the bears with the answers of v1 and reviewers, as clients send them."""

from datetime import timedelta

from rollout.data.records.records import RecordStore
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.records.records import Case, Decision, Prediction
from rollout.features.access import users
from rollout.features.reviews.requested_reviews import seed_gold_case
from rollout.live.evidence.unit_counting import queue_new_cases
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from tests.api.bears import POLICY
from tests.data.snapshots import filled_once
from tests.factories import NOON
from tests.features.houses import PASSWORD

AT = NOON + timedelta(hours=1)
CLOSED = NOON + timedelta(days=3)
NASTY = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
SLICED = POLICY + 'slices: [camera, "<b>lens</b>"]\ncharter: {objective: rest, cost_in: calls}\n'


def tell(database, *records, at=AT, rollout="bears", sender=None):
    """Keep records as they come in."""
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, rollout)
        results = RecordStore(transaction, state.rollout).store(
            records, received_at=at, sender=sender
        )
        queue_new_cases(transaction, state, results, at)


def case(key, *, site="creek", at=AT, window="day", **more):
    return Case(key=key, site=site, occurred_at=at, window=window, **more)


@filled_once
def judged(
    database, key, model="none", person="none", *, sure=0.9, by="rita", site="creek", at=AT, **more
):
    """Keep a case with v1's answer and one blind decision."""
    tell(
        database,
        case(key, site=site, at=at, **more),
        Prediction(key=key, version="v1", answers={"alarm": model}, at=at, confidence=sure),
        verdict(key, person, by=by, at=at),
        at=at,
    )


def verdict(key, person, *, by="rita", at=AT, **more):
    return Decision(
        key=key,
        reviewer=by,
        answers={"alarm": person},
        claims="blind",
        exposure="blind",
        submitted_at=at,
        **more,
    )


@filled_once
def some(database):
    """Keep six cases, four of them divergences: three at creek, one at the lake."""
    judged(database, "missed", "none", "bear", sure=0.71)
    judged(database, "false-1", "bear", "none", sure=0.93)
    judged(database, "false-2", "bear", "none", sure=0.88)
    judged(database, "lake-1", "bear", "none", sure=0.64, site="lake")
    judged(database, "same-1", "none", "none")
    judged(database, "same-2", "bear", "bear", site="lake")


def asked_again(service, key, at, count=1):
    """Put a closed case before people once more, as a known one."""
    database, ada = service.database, users.load_local_caller(service.database, "ada")
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "bears")
    seed_gold_case(database, ada, state, key, {"alarm": "bear"}, reviewer_count=count, at=at)


def newcomer(service, name, *rights):
    """Let somebody in who signs in like all others."""
    ada = users.load_local_caller(service.database, "ada")
    users.create_account(service.database, ada, name, at=NOON, role_assignments=rights)
    service.sign_in.set_password(ada, name, PASSWORD, at=NOON)


def mia(service):
    """Let mia in, who operates, reads and judges."""
    newcomer(
        service,
        "mia",
        AssignedRole("operator"),
        AssignedRole("viewer"),
        AssignedRole("reviewer"),
    )


@filled_once
def sliced(database, text=SLICED):
    """Name slices and the unit of costs in the policy."""
    apply_policy(database, text, Actor("zoe"), NOON)
