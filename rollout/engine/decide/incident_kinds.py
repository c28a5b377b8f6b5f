"""The kinds of incidents, each declared once: words, effects, and what acknowledging does."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class IncidentEffect:
    """What an incident of a kind caused.

    Attributes:
        name: as the ledger has it.
        outcome: what that means, on the incident's page.
        recovery: how it ends; () where that follows from the state of its cells.
    """

    name: str
    outcome: str
    recovery: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IncidentKind:
    """A kind of incident.

    Attributes:
        name: as ledger and API have it.
        tone, tag: of its mark on pages.
        meaning: what happened, as part of a sentence.
        effects: what its command or guard does beside opening it, in words that do nothing; the
            first one where a command opens it.
        about: what `about` names: an account, a client's own text such as a case's key, the
            attribute value that is reported once, or the instant that acknowledging confirms.
        fact: how one with a version speaks against it at the incident's site; "" if not.
        has_command: whether replicas open it by a command, and not a guard or a tick.
        is_single: whether one open incident is enough, whatever its reason says.
        discards_evidence: whether processes forget what they hold when it opens.
        leads_to_ledger: whether its page leads to the ledger's verification.
    """

    name: str
    tone: str
    tag: str
    meaning: str
    effects: tuple[IncidentEffect, ...]
    about: Literal["", "account", "text", "value", "instant"] = ""
    fact: str = ""
    has_command: bool = True
    is_single: bool = False
    discards_evidence: bool = False
    leads_to_ledger: bool = False

    def find_effect(self, name: str) -> IncidentEffect:
        """Return an effect of the kind; another one has its name as outcome."""
        return next((e for e in self.effects if e.name == name), IncidentEffect(name, name))

    def is_same_about(self, about: str, other: str) -> bool:
        """Return whether two of the kind are one by what they are about.

        Those about an instant are one without it, too: clocks disagree.
        """
        return self.is_single or (about == other and bool(about or self.about == "instant"))


LATE: Final = "late"
"""The effect of an alarm on harm that has nothing to narrow: see `name_late`."""


def name_late(guard_id: str) -> str:
    """Return under which id a guard's late harms are read.

    These are harms of cases on which the version acted before its present grants began, or before
    the guard last narrowed. They narrow nothing, and a person has to know of them.
    """
    return f"{LATE} {guard_id}"


RESUME: Final = "Then propose a resume. It needs the approvals of the highest gate that comes back."
ALARM: Final = IncidentKind(
    "alarm",
    "note",
    "Alarm",
    "a guard is in alarm",
    (
        IncidentEffect("narrowed", "Narrowing took effect at once, without an approval."),
        IncidentEffect(
            "suspended",
            "Grants are withheld, not ended: humans decide until the measure recovers.",
        ),
        IncidentEffect("reported", "Nothing was narrowed: this guard only reports."),
        IncidentEffect(
            LATE,
            "Nothing was narrowed: the model acted on the case before it last lost this cell, or"
            " before its grants began.",
            ("Find out whether the version may act elsewhere. Stop cells where it may not.",),
        ),
    ),
    has_command=False,
)
UNAUTHORIZED: Final = IncidentKind(
    "unauthorized",
    "bad",
    "Unauthorized action",
    "the model acted without a permit",
    (
        IncidentEffect(
            "recorded as unauthorized",
            "The action is recorded as unauthorized and is never evidence. No grant was ended for"
            " it.",
            ("Nothing was ended, so nothing has to be restored.",),
        ),
    ),
    fact="unauthorized",
    about="text",
)
LEDGER_ROLLED_BACK: Final = IncidentKind(
    "ledger_rolled_back",
    "bad",
    "Ledger rolled back",
    "a client knows a later ledger head",
    (
        IncidentEffect(
            "a human decides for the client that sent the head",
            "This client gets `human` for every case. It sent a head that is not in the ledger,"
            " and no code proves that this service gave it out. Other clients are not affected.",
            (
                "Find out where the client got this head: another service, or before a restore.",
                "If it is wrong, delete the head that the client stored. It continues at once.",
            ),
        ),
        IncidentEffect(
            "every cell is stopped",
            "The ledger was set back: entries that a client or a replica has read are gone. Every"
            " cell is stopped, open proposals have ended, and an era has begun: earlier permits"
            " and snapshots are invalid.",
            (
                "Compare the ledger with an export.",
                "Repeat lost stops and removals of users and keys.",
                RESUME,
            ),
        ),
    ),
    about="account",
    leads_to_ledger=True,
)
EVIDENCE_CHANGED: Final = IncidentKind(
    "evidence_changed",
    "bad",
    "Evidence changed",
    "evidence is not what was counted, or records were changed",
    (
        IncidentEffect(
            "reported; grants and proposals stay",
            "Records or counted units were changed in the database. Grants and proposals stay as"
            " they are; judge them before you approve anything.",
            (
                "`rollout doctor --rebuild` names the changed records.",
                "Stop what rests on them, or restore a backup from before the change.",
            ),
        ),
        IncidentEffect(
            "its cells are stopped",
            "A process held other evidence of the cell than was counted. The cells in which it"
            " counts are stopped, their open proposals have ended, and it is read anew.",
            (
                "`rollout doctor --rebuild` names changed records.",
                RESUME,
            ),
        ),
    ),
    is_single=True,
    discards_evidence=True,
)
UNFAMILIAR: Final = IncidentKind(
    "unfamiliar",
    "warn",
    "Unfamiliar cases",
    "differs from humans too often on an attribute value",
    (
        IncidentEffect(
            "a human decides its cases",
            "Humans decide the cases with this value, unseen. The version goes on with the others;"
            " no grant was ended.",
            (
                "The version decides such cases again when enough of the newest judged ones agree.",
                "A version that was trained on them may become familiar with the value.",
            ),
        ),
    ),
    about="value",
    has_command=False,
)
SENDER_CLOCK: Final = IncidentKind(
    "sender_clock",
    "warn",
    "Sender's clock ahead",
    "an account dates actions ahead of their receipt",
    (
        IncidentEffect(
            "judged by the time of receipt",
            "The actions are stored with the time that they state, and judged by the time at which"
            " they were received. No grant was ended.",
            ("Set the clock of the sender, or let it date actions by the service's time.",),
        ),
    ),
    about="account",
)
CLOCK_BEHIND: Final = IncidentKind(
    "clock",
    "warn",
    "Clock behind",
    "the clock is behind the last entry or tick",
    (
        IncidentEffect(
            "nothing raised or applied",
            "Nothing is raised or applied while clocks disagree or are behind the last entry or"
            " tick. Narrowing and stopping still work.",
            (
                "Correct the machine's clock; every tick checks it.",
                "If it is right and entries or ticks are ahead of it, acknowledge this.",
            ),
        ),
    ),
    about="instant",
    leads_to_ledger=True,
)
WRITES_FAILED: Final = IncidentKind(
    "writes",
    "warn",
    "Append failed",
    "a replica could not write to the ledger",
    (
        IncidentEffect(
            "a replica let humans decide until it could write again",
            "The replica answered `human` for every case of the rollout until it could append"
            " this incident.",
            ("The replica can write again. Repeat what was refused with an error meanwhile.",),
        ),
    ),
)
INCIDENT_KINDS: Final[Mapping[str, IncidentKind]] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            ALARM,
            UNAUTHORIZED,
            LEDGER_ROLLED_BACK,
            EVIDENCE_CHANGED,
            UNFAMILIAR,
            SENDER_CLOCK,
            CLOCK_BEHIND,
            WRITES_FAILED,
        )
    }
)
"""By name."""


def get_incident_kind(name: str) -> IncidentKind:
    """Return a kind; one that there is not has its name as meaning."""
    return INCIDENT_KINDS.get(name) or IncidentKind(name, "note", "Incident", name, ())


def list_kinds_about(what: str) -> tuple[str, ...]:
    """Return the names of the kinds whose incidents are about an account, or a text."""
    return tuple(kind.name for kind in INCIDENT_KINDS.values() if kind.about == what)
