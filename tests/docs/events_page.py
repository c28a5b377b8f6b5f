"""The page of the ledger's event kinds, from the classes of the events."""

import inspect
import re
from dataclasses import fields

from rollout.engine.events import EVENT_TYPES, FREE_TEXT, OMITTED_WHEN_EMPTY, LedgerEvent
from rollout.engine.ledger.access_events import ACCESS_KINDS

HEAD = """\
# Ledger events

Generated from the classes of the events. [Ledger format](ledger.md) explains the keys around them.
`kind` names the event, `body` has the fields below. Instants are microseconds since 1970, UTC.
`reason_hash` and `note_hash` are salted hashes of text that a user typed. Fields in parentheses are
absent while they are empty.
"""
FIELDS = """\
## Fields

What names alone don't tell.
"""
STATE = """\
## Recompute the state

The state after an entry is the state before it, changed as this table says. Kinds that it lacks
change nothing. `at` is the entry's time; the ledger's time is the latest `at` so far. Units count
from `at`. If the entry has a `slot` and is no `ClockCorrected`, they count from `slot`, or from
where those of the entry before count, if that is later. A version that loses its last grant in a
cell also loses its suspensions there.
"""
STAGE = """\
A version's stage in a cell is shadow if the version is retired, suspended there, or the cell is
stopped. Otherwise it is the highest stage whose grant, and each grant below, has begun and not
ended: `since` ≤ instant < `until`. An instant before the ledger's time counts as that time. Limits
of the policy (`never_above`, `ends`) and its opening hours can lower the stage; the ledger holds
only the hash of the policy's text.

An entry `Widened`, `Renewed`, `TakenOver`, `Resumed`, or `PolicyApplied` that `loosens`, cites a
`proposal` of the same change: open, before its `expires_at`, with an approver for each of its
`needs`, and held by no incident. Approvers are different accounts, have the needed group in
`groups`, did not raise the proposal, and cite its `evidence_hash`. `about` of the proposal is the
`policy_hash` or the `stop`. No entry gives a grant in a cell that is stopped, to a version that is
suspended there or retired, or while another version has grants there; `TakenOver` names that
version.
"""
EFFECTS = {
    "AttemptsBegan": "Each named attempt has begun, with its number in the cell's year and its"
    " share. `verify_ledger.py` prints `attempt 3 of 2025, start 1`: the third of all versions in"
    " the cell's year, the first start of this version's evidence there.",
    "FamiliarityChanged": "Each named value has its new status in the cell, for the version: it"
    " decides cases whose values are all `familiar` there, where the policy asks for that.",
    "PolicyApplied": "The policy is in force; `proposal` closes. In each cell of `cleared` each"
    " version so far begins its next attempt, from which units count as above, and loses its grants"
    " and suspensions; in `restarted` each whose attempt has begun begins the next."
    " Each version of `counted` begins its next attempt in every cell."
    " A stop of a cell of `former` also holds for the cell at its place in `renamed`.",
    "VersionFirstUsed": "The version exists: in each cell its attempt 1 begins at `at`.",
    "VersionRenamed": "The name stands for the version `continues`. No attempt begins.",
    "VersionRetired": "The version loses its grants in all cells.",
    "ProposalRaised": "The proposal is open.",
    "Approved": "The proposal has an approval by `actor`, with `groups`.",
    "FactsConfirmed": "The `incidents` no longer hold the proposal.",
    "ProposalHeld": "The proposal stays as it is; no later entry says so of it again.",
    "ProposalRejected": "The proposal closes.",
    "ProposalVoided": "The proposal closes.",
    "ProposalExpired": "The proposal closes.",
    "Widened": "`proposal` closes. A grant of `to_stage` is added on top, from `at` to `until`.",
    "Renewed": "`proposal` closes. The grant of `stage` now runs from `at` to `until`.",
    "TakenOver": "`proposal` closes. `replaced_version` loses its grants there; `version` has one"
    " of each of `stages`, from `at` to the end in `grant_ends`.",
    "Narrowed": "Grants above `to_stage` are removed. With `restart` the next attempt begins, from"
    " which units count as above.",
    "Suspended": "`guard` withholds the grants.",
    "SuspensionCleared": "The suspension or alarm of `guard` ends.",
    "GrantExpired": "The grant of `stage` and those above are removed.",
    "Stopped": "The stop withholds all grants in `cells`.",
    "Resumed": "`proposal` closes; the stop ends.",
    "EraBegan": "`era` is the era.",
    "IncidentOpened": "The incident is open. With a `fact` it holds each open proposal of `version`"
    " for a cell, whose `evidence_hash` becomes the SHA-256 of the one before, a line end and the"
    " incident's id. If its `effect` is `reported`, the guard is in alarm;"
    " if its `kind` is `unfamiliar`, no other one is opened about the value in the cell.",
    "IncidentAcknowledged": "The incident is closed.",
    "ClockCorrected": "A user acknowledged the incident `clock` whose `about` is `previous_time`."
    " The ledger's time is `at`. From the lowest, grants stay"
    " while they began by `at` and end after `previous_time`. Attempts and first uses that began"
    " later now began at `at`.",
}
"""How each kind changes the state; a test compares the kinds with the projection."""
COMMON = frozenset(field.name for field in fields(LedgerEvent))


def write_events():
    lines = [HEAD]
    for title, kinds in (("A rollout's ledger", EVENT_TYPES), ("The access ledger", ACCESS_KINDS)):
        lines += [f"## {title}\n", "| kind | meaning | fields of `body` |", "|---|---|---|"]
        lines += [_write_row(name, kind) for name, kind in kinds.items()]
        lines += [""]
    lines += [FIELDS, "| kind | field | meaning |", "|---|---|---|", *_write_fields(), ""]
    lines += [STATE, "| kind | effect |", "|---|---|"]
    lines += [f"| `{name}` | {effect} |" for name, effect in EFFECTS.items()]
    return "\n".join([*lines, "", STAGE])


def _write_fields():
    """Yield a row for each field that a docstring explains."""
    for name, kind in (EVENT_TYPES | ACCESS_KINDS).items():
        for names, meaning in _list_attributes(kind):
            keys = ", ".join(f"`{key}`" for key in names)
            yield f"| `{name}` | {keys} | {meaning} |"


def _list_attributes(kind):
    """Yield names and meanings of the section `Attributes` of a kind's docstring and its bases'."""
    for base in kind.__mro__[:-1]:
        text = (inspect.getdoc(base) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
        for item in re.split(r"\n(?= {4}\S)", text.rstrip()) if "__doc__" in vars(base) else ():
            names, colon, meaning = item.partition(":")
            if colon:
                yield tuple(name.strip() for name in names.split(",")), " ".join(meaning.split())


def _write_row(name, kind):
    text = (inspect.getdoc(kind) or "").partition("Attributes:")[0]
    text = " ".join(text.split())
    names = [name for field in fields(kind) for name in _name_fields(field)]
    return f"| `{name}` | {text} | {', '.join(names) or '–'} |"


def _name_fields(field):
    """Return the keys of a field in the body; none for what the entry itself holds."""
    if field.name in COMMON:
        return []
    if field.name == "cell":
        return ["`site`", "`window`"]
    name = f"`{field.name}_hash`" if FREE_TEXT in field.metadata else f"`{field.name}`"
    return [f"({name})" if OMITTED_WHEN_EMPTY in field.metadata else name]
