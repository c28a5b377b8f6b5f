"""Who decides one case, right now. In doubt a person does."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from rollout.core.draws import draw
from rollout.core.openings import next_change
from rollout.core.places import OTHER, Cell, window_at
from rollout.core.policy import Policy, Stage
from rollout.core.scope import Scope, acting

MOST_ASKEW = timedelta(minutes=5)  # a live question about another time is a person's


@dataclass(frozen=True, slots=True)
class Question:
    """One case to be decided: where, when, by which version, at which confidence."""

    site: str
    at: datetime
    version: str
    key: str
    episode: str = ""
    confidence: float | None = None
    attributes: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """The answer to "who decides this case".

    Attributes:
        decider: `human` or `model`.
        stage: the stage that the version holds there.
        exposure: what a person sees: `blind` or `assisted`; a model's audited case is `blind`.
        audited: whether a blind verdict is asked for afterwards.
        share: the share of units that the draw would have treated alike.
        because: why, in one phrase.
        revision: position in the ledger that the answer follows from.
        lease: how long the answer may be used, from the moment the question was sent.
    """

    decider: str
    stage: str
    exposure: str
    audited: bool
    share: float
    because: str
    revision: int
    lease: timedelta


def assign(
    scope: Scope, policy: Policy, salt: bytes, asked: Question, *, now: datetime
) -> Assignment:
    """Say who decides; a person whenever something asked for is missing, unknown or askew.

    Args:
        scope: the fold of the ledger.
        policy: the policy in force.
        salt: the rollout's secret; the same case gets the same draw for ever.
        asked: the case.
        now: the asker's instant of asking, with its zone.
    """
    cell, doubt = _cell(policy, asked, now)
    here = None if cell is None else acting(scope, policy, cell, now)
    if cell is None or here is None or here[0] != asked.version:
        return _person(scope, policy.lease, doubt or "shadow: people decide")
    stage = policy.stage(here[1])
    lease = _lease(scope, policy, cell, asked, now)
    floor = policy.evidence.confidence_floor
    if floor is not None and not _sure(asked.confidence, floor):
        return _person(scope, lease, "below the confidence floor", stage.id)
    number = draw(salt, "stage", asked.episode or asked.key)
    return _drawn(stage, number, scope.revision, lease)


def _sure(confidence: float | None, floor: float) -> bool:
    """Say whether a confidence reaches the floor; none, or one that is no share, does not."""
    return confidence is not None and floor <= confidence <= 1


def _cell(policy: Policy, asked: Question, now: datetime) -> tuple[Cell | None, str]:
    site = policy.site.get(asked.site)
    if site is None or not asked.key or not asked.version:
        return None, "unknown site, key or version"
    if asked.at.utcoffset() is None:
        return None, "the case's time has no zone"
    if abs(asked.at - now) > MOST_ASKEW:
        return None, "the case's time is more than 5 min from now"
    window = window_at(site, policy.windows, asked.at, asked.attributes)
    return (None, "no window fits") if window == OTHER else (Cell(site.id, window), "")


def _person(scope: Scope, lease: timedelta, because: str, stage: str = "shadow") -> Assignment:
    return Assignment("human", stage, "blind", False, 1.0, because, scope.revision, lease)


def _drawn(stage: Stage, number: float, revision: int, lease: timedelta) -> Assignment:
    if number < stage.blind:
        return Assignment(
            "human", stage.id, "blind", False, stage.blind, "blind share", revision, lease
        )
    if not stage.model_decides:
        share = 1 - stage.blind
        return Assignment(
            "human", stage.id, "assisted", False, share, "a person confirms", revision, lease
        )
    audited = number < stage.seen
    share = stage.seen - stage.blind if audited else 1 - stage.seen
    because = "audited" if audited else "the model decides"
    return Assignment("model", stage.id, "blind", audited, share, because, revision, lease)


def _lease(scope: Scope, policy: Policy, cell: Cell, asked: Question, now: datetime) -> timedelta:
    """Return min(site's lease, time to the window's change, time to the grant's end)."""
    site = policy.site[cell.site]
    now = now if scope.at is None else max(now, scope.at)
    grants = scope.state(cell, asked.version).grants
    ends = [grant.until for grant in grants if grant.valid(now)]
    changes = [next_change(w.hours, site, now) for w in policy.windows if w.hours is not None]
    spans = [end - now for end in (*ends, *changes) if end is not None]
    return min((site.lease or policy.lease, *spans))
