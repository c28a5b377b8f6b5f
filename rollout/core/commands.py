"""What may be asked of a rollout. Each is a value; `rollout.core.decider` says what follows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rollout.core.known import Known
from rollout.core.places import Cell
from rollout.core.policy import Policy

Evidence = Mapping[tuple[Cell, str], Known]


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks: a name, the groups it stands in; `machine` where a key and no person asks."""

    name: str
    groups: tuple[str, ...] = ("operator",)
    machine: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Something asked at an instant."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick(Command):
    """One pass of the engine. `pending` holds policies that wait for approval, by hash.

    `evidence` holds what is known of each (cell, version); those left out have not changed since
    the tick before, and nothing follows from them but what time brings. `slot` is the instant of
    the slot whose evidence that is; the events of the tick cite it.
    """

    evidence: Evidence = field(default_factory=dict)
    pending: Mapping[str, Policy] = field(default_factory=dict)
    slot: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ByPerson(Command):
    """Something that a person asks."""

    by: Person


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyPolicy(ByPerson):
    """Put `policy` in force, or raise it as a proposal where it loosens the one before."""

    policy: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class See(Command):
    """A version's first prediction or question came in."""

    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire(ByPerson):
    """A version is no longer served."""

    version: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaiseTakeover(ByPerson):
    """Propose that `version` takes the acting version's place at stage `to`."""

    cell: Cell
    version: str
    to: str
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class AskRenewal(ByPerson):
    """Propose that the grant of stage `to` lasts longer, in its last fifth, as a tick would."""

    cell: Cell
    version: str
    to: str
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve(ByPerson):
    """Say yes to the proposal whose evidence has the hash that the person was shown."""

    proposal: str
    evidence: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject(ByPerson):
    """Say no."""

    proposal: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrow(ByPerson):
    """Take grants above stage `to` away, of whichever version holds them."""

    cells: tuple[Cell, ...]
    to: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopCells(ByPerson):
    """Withhold every grant in `cells` until an approved resume; may be a drill."""

    cells: tuple[Cell, ...]
    reason: str = ""
    drill: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AskResume(ByPerson):
    """Propose that a stop is taken back."""

    stop: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledge(ByPerson):
    """Say that an incident was seen; said before, it holds."""

    incident: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenIncident(Command):
    """Tell people of something: `kind` is `unauthorized`, `ledger_rolled_back` or `clock`.

    While the same stands unacknowledged nothing new is opened. The same is: of the same kind, and
    `about` the same case or client, or for the same reason in the same cell and version. A `clock`
    is one whatever its reason. `about` goes into the ledger, which keeps it for ever.
    """

    kind: str
    reason: str
    cell: Cell | None = None
    version: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectClock(ByPerson):
    """Propose that the ledger's time goes back to the clock's, which is this command's `at`."""
