"""Verify an exported ledger without the program that wrote it, and recompute what it allowed.

    python verify_ledger.py ledger.jsonl --checkpoint checkpoints.jsonl --public-key KEY
    python verify_ledger.py ledger.jsonl --revision 40 --at 2026-11-21T12:00:00Z --json

It checks that each row is unchanged and follows the row before, that signed or noted heads are
among the rows, and that each row was allowed by those before it: who approved what, on which
evidence, in time. It recomputes grants, stops, attempts and the stage of each cell after any row.

A ledger has a policy's hash, not its text: lengths of grants can't be checked, and a stage may be
lower than shown (`never_above`, `ends`, opening hours). Only a head shows rows removed at the end.
Exit code 0: nothing differs. 1: something differs. 2: the input can't be read.
It needs Python 3.11, for checkpoints `cryptography`. Rules: pages "Ledger format", "Ledger events".
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

SHADOW = "shadow"
ACCESS_LEDGER = ":access"  # what rows of the access ledger have as their rollout
DAMAGED = "is damaged, or is no row of a ledger"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
COLUMNS = {
    "rollout": str, "revision": int, "at": int, "kind": str, "actor": str, "body": dict,
    "previous": str, "hash": str}  # fmt: skip
NUMBERS = {"access_head", "slot"}  # whole numbers or null
CHECKPOINT = {"ledger": str, "revision": int, "hash": str, "at": int, "key": str, "signature": str}
CELL_KINDS = {"Widened": "widening", "Renewed": "renewal", "TakenOver": "takeover"}
PROPOSED_KINDS = {**CELL_KINDS, "Resumed": "resume"}
HISTORY = {"FamiliarityChanged", "ProposalHeld", "CasesPlanted", "TrainingCutoffSet",  # no stage
    "RolloutCreated", "IncidentOpened", "RecordsPurged", "RecordsImported",
    "CasesErased", "NameErased", "ReportSealed", "RecordsCounted", "DamageCleared",
    "CalendarDataSet"}  # fmt: skip


class UnreadableError(Exception):
    """The input is no ledger, or has rows that this file does not know."""


class BrokenChainError(Exception):
    """A row was changed, removed, added or moved."""


@dataclass(frozen=True)
class ExportedRow:
    """A row of a ledger; `erased` counts texts that are gone."""

    rollout: str
    revision: int
    at: int
    slot: int | None
    kind: str
    actor: str
    body: dict[str, Any]
    hash: str
    erased: int


def read_rows(lines: Iterable[bytes]) -> Iterator[ExportedRow]:
    """Yield the rows of an exported ledger; each is checked against the row before."""
    last: ExportedRow | None = None
    for number, line in enumerate(lines, start=1):
        try:
            last = check_row(parse_line(line), last)
        except BrokenChainError as error:
            raise BrokenChainError(f"row {number}: {error}") from None
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise BrokenChainError(f"row {number}: it {DAMAGED}") from error
        yield last
    if last is None:
        raise UnreadableError("the file is empty")


def parse_line(line: bytes) -> dict[str, Any]:
    """Return the content of a line that is canonical JSON with the keys of a row."""
    text = line.decode().removesuffix("\n")
    content: dict[str, Any] = json.loads(text, parse_float=int, parse_constant=int)  # no floats
    types = {key: type(content[key]) for key in content if key != "texts"}
    types.update({key: int for key in NUMBERS if content[key] is None})
    if types != {**COLUMNS, **dict.fromkeys(NUMBERS, int)}:
        raise BrokenChainError(f"it {DAMAGED}: a key is missing, unknown or of a wrong type")
    if format_canonical(content) != text:
        raise BrokenChainError("it is not in canonical form: sorted keys, no spaces, no key twice")
    return content


def format_canonical(value: Any) -> str:
    """Return the canonical JSON of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def check_row(content: dict[str, Any], last: ExportedRow | None) -> ExportedRow:
    """Return a row that follows `last`, or raise an error that says what differs."""
    kind, body = content["kind"], content["body"]
    texts, row_hash = content.pop("texts", {}), content.pop("hash")
    hashed = f"rollout-ledger-1\n{format_canonical(content)}".encode()
    if sha256(hashed).hexdigest() != row_hash:
        raise BrokenChainError("its hash is not that of its content")
    if content["previous"] != (last.hash if last else ""):
        raise BrokenChainError("it does not follow the row before: rows were removed or moved")
    if content["revision"] != (last.revision + 1 if last else 1):
        raise BrokenChainError(f"its revision is {content['revision']}")
    if last and content["rollout"] != last.rollout:
        raise BrokenChainError(f"it belongs to {content['rollout']}, not to {last.rollout}")
    for name, text in texts.items():
        hashed = b"rollout-text-1\n" + bytes.fromhex(text["salt"]) + text["text"].encode()
        if body.get(f"{name}_hash") != sha256(hashed).hexdigest():
            raise BrokenChainError(f"its text {name} is not the one that was hashed")
    erased = sum(f"{n}_hash" in body and n not in texts for n in ("reason", "note", "about"))
    columns = {name: content.get(name) for name in ("rollout", "revision", "at", "slot", "actor")}
    return ExportedRow(**columns, kind=kind, body=body, hash=row_hash, erased=erased)


@dataclass
class HeldGrant:
    """Permission to hold a stage from `since` until before `until`."""

    stage: str
    since: int
    until: int
    proposal: str


@dataclass
class VersionInCell:
    """What one version holds in one cell; `grants` are lowest stage first."""

    attempt_since: int
    attempt: int = 1
    of_year: str = ""  # the attempt's number in the cell's year, once it has its share of the risk
    grants: list[HeldGrant] = field(default_factory=list)
    suspended_by: set[str] = field(default_factory=set)
    floor: float = 0.0  # the least confidence of cases that the grants hold for

    @property
    def stages(self) -> list[str]:
        """Return shadow and the stages of the grants, lowest first."""
        return [SHADOW, *(grant.stage for grant in self.grants)]

    def count_holding(self, first: int, last: int) -> int:
        """Return how many grants, from the lowest, hold from one instant to another."""
        holds = [grant.since <= first and last < grant.until for grant in self.grants]
        return [*holds, False].index(False)

    def restart(self, at: int) -> None:
        """Start the next attempt; it gets its share of the risk when it counts a unit."""
        self.attempt, self.attempt_since, self.of_year = self.attempt + 1, at, ""

    def keep_grants(self, count: int) -> None:
        """Keep the lowest grants; losing the last one ends the suspensions too."""
        if count < len(self.grants):
            self.grants = self.grants[:count]
            self.suspended_by = self.suspended_by if count else set()


@dataclass
class RaisedProposal:
    """The row that raised a proposal, and the rows that approved it."""

    row: ExportedRow
    is_open: bool = True
    approvals: list[ExportedRow] = field(default_factory=list)
    cited_hash: str = ""  # what an approval has to cite: it also covers incidents since
    unconfirmed: list[str] = field(default_factory=list)

    @property
    def subject(self) -> str:
        """Return what it proposes."""
        body = self.row.body
        if body["kind"] not in CELL_KINDS.values():
            return f"{body['kind']} {body['about']}"
        return "{kind} {site} · {window} {version} {to_stage}".format_map(body)

    @property
    def evidence_hash(self) -> str:
        """Return the hash of what users were shown."""
        body = self.row.body
        cells = ["{site} · {window}".format_map(cell) for cell in body.get("cells", [])]
        lines = [
            self.subject,
            *([body["confidence_floor"]] if body.get("confidence_floor") else []),
        ]
        lines += map(format_canonical, [*body["readings"], *body.get("loosens", [])])
        lines += [*cells, *body.get("incidents", [])]
        return sha256("\n".join(lines).encode()).hexdigest()


def can_fill(needs: list[str], approvals: list[list[str]]) -> bool:
    """Return whether each need is in the groups of an approval of its own."""
    return not needs or any(
        needs[0] in groups and can_fill(needs[1:], approvals[:place] + approvals[place + 1 :])
        for place, groups in enumerate(approvals)
    )


def compute_share(number: int, releases: int) -> float:
    """Return the share of a gate's risk for an attempt of a year; all shares sum to 1."""
    if not releases:
        return float(number**-1.5) / 2.6123753486854883  # Riemann's zeta function at 1.5
    later = number - releases
    return 0.8 / releases if later <= 0 else 0.2 / (later * (later + 1))


class RecomputedState:
    """What the rows so far allow; `differences` says which of them were not allowed."""

    def __init__(self, rows: Iterable[ExportedRow]) -> None:
        """Apply the rows of a ledger from its first one."""
        self.revision, self.kind, self.at, self.since, self.era = 0, "", 0, 0, 1
        self.policy_number, self.policy_hash = 0, ""
        self.starts: dict[str, int] = {}  # by version: its first use
        self.retired, self.contents = set[str](), dict[str, str]()  # the latter by version
        self.cells: dict[tuple[str, str, str], VersionInCell] = {}  # by site, window, version
        self.years: dict[tuple[str, str], tuple[Any, ...]] = {}  # year, spent risk, number, plan
        self.stops: dict[str, dict[str, Any]] = {}  # by id, as described
        self.proposals: dict[str, RaisedProposal] = {}
        self.approvals, self.differences = list[dict[str, Any]](), list[str]()
        self.abouts, self.confirmed = dict[str, str](), set[str]()  # of incidents
        for row in rows:
            self.apply_row(row)

    def apply_row(self, row: ExportedRow) -> None:
        """Change the state as a row says, and note what the rows before don't allow."""
        self.revision, self.kind = row.revision, row.kind
        is_of_slot = row.slot is not None and row.kind != "ClockCorrected"  # units count from there
        self.since = max(self.since, row.slot or 0) if is_of_slot else row.at
        try:
            if row.kind in PROPOSED_KINDS:
                self._take_proposal(row, PROPOSED_KINDS[row.kind], about=row.body.get("stop", ""))
            self._METHODS.get(row.kind, RecomputedState._apply_short_row)(self, row, row.body)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            name = f": {error}" * isinstance(error, KeyError)
            self.note_if(True, f"lacks a field, or names what no row before has{name}")
        self.at = max(self.at, row.at)

    def note_if(self, differs: bool, problem: str) -> None:
        """Note what differs in the row that is applied."""
        if differs:
            self.differences.append(f"row {self.revision}: {self.kind} {problem}")

    def _apply_short_row(self, row: ExportedRow, body: dict[str, Any]) -> None:  # noqa: C901 - one case a kind
        match row.kind:
            case "IncidentAcknowledged":
                self.confirmed.add(self.abouts.pop(body["incident"], ""))
            case "ProposalRejected" | "ProposalVoided" | "ProposalExpired":
                name, proposal = body["proposal"], self.proposals[body["proposal"]]
                self.note_if(not proposal.is_open, f"closes {name}, which is closed")
                proposal.is_open = False
            case "VersionFirstUsed":
                self.starts.setdefault(body["version"], row.at)
                self.contents.setdefault(body["version"], body.get("content", ""))
            case "VersionRenamed":  # a name for what it continues: no later row gives it a grant
                is_other = self.contents[body["continues"]] not in {body["content"], ""}
                self.note_if(is_other or body["version"] in self.starts, "names another version")
            case "VersionRetired":
                self.retired.add(body["version"])
                for (_, _, version), cell in self.cells.items():
                    cell.keep_grants(0 if version == body["version"] else len(cell.grants))
            case "Stopped":
                name, is_wrong = body["stop"], body["stop"] in self.stops or not body["cells"]
                self.note_if(is_wrong, f"has no cells, or the id {name} of a stop that holds")
                self.stops[name] = describe_row(row)
            case "Resumed":
                del self.stops[body["stop"]]
            case "Suspended" | "SuspensionCleared":
                guards, is_new = self.get_cell(body).suspended_by, row.kind == "Suspended"
                (guards.add if is_new else guards.discard)(body["guard"])
            case "EraBegan":
                self.note_if(body["era"] <= self.era, f"begins era {body['era']} in era {self.era}")
                self.era = max(self.era, body["era"])
            case kind if kind not in HISTORY:
                raise UnreadableError(f"row {row.revision}: this file is older than {kind}")

    def get_cell(self, body: dict[str, Any], version: str | None = None) -> VersionInCell:
        """Return the version in the cell that a body names."""
        key = (body["site"], body["window"], version or body["version"])
        return self.cells.setdefault(key, VersionInCell(self.starts[key[2]]))

    def _begin_attempts(self, _: ExportedRow, body: dict[str, Any]) -> None:
        """Give attempts their numbers in the cell's year and their shares of the risk."""
        keys = ("cells", "versions", "years", "numbers", "releases", "shares")
        for place, version, year, number, releases, share in zip(*map(body.get, keys), strict=True):
            cell, name = self.get_cell(place, version), (place["site"], place["window"])
            last_year, spent, last_number, planned = self.years.get(name, (0, 0.0, 0, 0))
            if year != last_year:
                spent, last_number, planned = 0.0, 0, releases
            own_share, gives = compute_share(number, releases), f"gives {version} in {name} the"
            is_wrong = cell.of_year != "" or year < last_year or number != last_number + 1
            self.note_if(is_wrong, f"{gives} number {number} of {year}")
            self.note_if(releases != planned, f"changes the shares of {year} in {name}")
            self.note_if(abs(float(share) - own_share) > 1e-12, f"{gives} share {share}")
            self.years[name] = (year, spent + own_share, number, releases)
            cell.of_year = f"{number} of {year}"

    def find_withholding(self, site: str, window: str, version: str) -> str:
        """Return why the grants of a version in a cell are withheld, or ""."""
        place, cell = {"site": site, "window": window}, self.cells.get((site, window, version))
        reasons = ["retired"] * (version in self.retired)
        reasons += [f"stopped by {s}" for s in self.stops if place in self.stops[s]["cells"]]
        reasons += [f"suspended by {guard}" for guard in sorted(cell.suspended_by if cell else ())]
        return ", ".join(reasons)

    def find_stage(self, site: str, window: str, version: str, at: int) -> str:
        """Return the highest stage whose grant, and each below, holds at an instant."""
        cell, at = self.cells.get((site, window, version), VersionInCell(0)), max(at, self.at)
        is_withheld = self.find_withholding(site, window, version)
        return SHADOW if is_withheld else cell.stages[cell.count_holding(at, at)]

    def _raise_proposal(self, row: ExportedRow, body: dict[str, Any]) -> None:
        name, proposal = body["proposal"], RaisedProposal(row)
        self.note_if(name in self.proposals, f"has the id {name} of an earlier proposal")
        if body.get("site") is not None:
            self.get_cell(body)
        self.proposals[name] = proposal
        proposal.cited_hash = body["evidence_hash"]
        is_other = body["evidence_hash"] != proposal.evidence_hash
        self.note_if(is_other, "has an evidence hash that is not that of its readings")

    def _approve_proposal(self, row: ExportedRow, body: dict[str, Any]) -> None:
        name, actor, proposal = body["proposal"], row.actor, self.proposals[body["proposal"]]
        raised, approvers = proposal.row, {approval.actor for approval in proposal.approvals}
        self.note_if(not proposal.is_open, f"approves {name}, which is closed")
        self.note_if(actor == raised.actor, f"is of {actor}, who raised {name}")
        self.note_if(actor in approvers, f"is the second of {actor} for {name}")
        is_other = body["evidence_hash"] != proposal.cited_hash
        self.note_if(is_other, f"cites other evidence than {name} has")
        proposal.approvals.append(row)
        self.approvals.append({**describe_row(row), "of": proposal.subject})

    def _confirm_facts(self, row: ExportedRow, body: dict[str, Any]) -> None:
        """An approver wants a proposal in spite of incidents since it was raised."""
        name, proposal = body["proposal"], self.proposals[body["proposal"]]
        self.note_if(not proposal.is_open, f"confirms {name}, which is closed")
        self.note_if(row.actor == proposal.row.actor, f"is of {row.actor}, who raised {name}")
        is_other = body["evidence_hash"] != proposal.cited_hash
        is_other = is_other or body["incidents"] != proposal.unconfirmed
        self.note_if(is_other, f"cites other evidence than {name} has")
        is_asked = bool(set(body["groups"]) & set(proposal.row.body["needs"]))
        self.note_if(not is_asked, f"is of {row.actor}, whom {name} doesn't ask")
        proposal.unconfirmed = []

    def _open_incident(self, _: ExportedRow, body: dict[str, Any]) -> None:
        """Note an incident that speaks against a version with its open proposals."""
        self.abouts[body["incident"]] = body.get("about", "")
        for proposal in self.proposals.values():
            terms = proposal.row.body
            is_own = terms.get("site") is not None and terms["version"] == body["version"]
            if body.get("fact") and proposal.is_open and is_own:
                proposal.unconfirmed.append(body["incident"])
                text = f"{proposal.cited_hash}\n{body['incident']}"
                proposal.cited_hash = sha256(text.encode()).hexdigest()

    def _take_proposal(self, row: ExportedRow, kind: str, about: str = "") -> None:
        """Close the proposal that a row applies, and note what forbids that."""
        name = row.body["proposal"]
        if name not in self.proposals:
            self.note_if(True, f"cites the proposal {name!r}, which no row raised")
            return
        proposal, body = self.proposals[name], self.proposals[name].row.body
        cites, needs, expires_at = f"cites {name}, which", body["needs"], body["expires_at"]
        is_other = body["kind"] != kind or body["about"] != (about or body["about"])
        groups = [approval.body["groups"] for approval in proposal.approvals]
        has = "; ".join(map(" or ".join, groups)) or "no approval"
        self.note_if(not proposal.is_open, f"{cites} is closed")
        self.note_if(is_other, f"{cites} proposes {proposal.subject}")
        self.note_if(row.at >= expires_at, f"{cites} expired {format_instant(expires_at)}")
        self.note_if(not can_fill(needs, groups), f"{cites} needs {', '.join(needs)}; has {has}")
        against = ", ".join(proposal.unconfirmed)
        self.note_if(bool(against), f"{cites} nobody confirmed in spite of {against}")
        proposal.is_open = False

    def _check_grant(self, row: ExportedRow, body: dict[str, Any]) -> None:
        """Note what forbids a widening, renewal or takeover."""
        place, version = (body["site"], body["window"]), body["version"]
        stage, raised = body.get("to_stage") or body["stage"], self.proposals.get(body["proposal"])
        subject = f"{CELL_KINDS[row.kind]} {' · '.join(place)} {version} {stage}"
        proposed = raised.subject if raised else subject
        self.note_if(proposed != subject, f"is not what {body['proposal']} proposes: {proposed}")
        own, terms = body.get("confidence_floors", []), raised.row.body if raised else {}
        floors = [terms.get("confidence_floor", ""), *terms.get("stricter_floors", [])]
        is_other = bool(terms) and row.kind != "Renewed" and own != [*filter(None, floors)]
        self.note_if(is_other, f"opens the floors {own}, not those of {body['proposal']}")
        reason, stages = self.find_withholding(*place, version), self.get_cell(body).stages
        self.note_if(reason != "", f"changes what is {reason}")
        is_lower = bool(own) and row.kind == "Widened" and stage == stages[-1]
        is_lower = is_lower and float(own[0]) < self.get_cell(body).floor
        is_wrong = (stage in stages) != (row.kind == "Renewed" or is_lower)
        self.note_if(is_wrong, f"gives {stage} where {version} holds {', '.join(stages)}")
        holders = {key[2] for key, cell in self.cells.items() if key[:2] == place and cell.grants}
        is_wrong = holders - {version} != {body.get("replaced_version", version)} - {version}
        self.note_if(is_wrong, f"gives a grant where {sorted(holders)} hold some")

    def _change_grants(self, row: ExportedRow, body: dict[str, Any]) -> None:
        self._check_grant(row, body)
        cell = self.get_cell(body)
        stages = body.get("stages") or [body.get("to_stage") or body["stage"]]
        ends = zip(stages, body.get("grant_ends") or [body["until"]], strict=True)
        grants = {stage: HeldGrant(stage, row.at, until, body["proposal"]) for stage, until in ends}
        if row.kind == "TakenOver":
            self.get_cell(body, body["replaced_version"]).keep_grants(0)
            cell.grants = list(grants.values())
        elif row.kind == "Widened":  # a lower confidence floor opens a stage once more
            cell.grants = [grant for grant in cell.grants if grant.stage != stages[0]]
            cell.grants += grants.values()
        else:
            cell.grants = [grants.get(grant.stage, grant) for grant in cell.grants]
        cell.floor = float((*body.get("confidence_floors", ()), cell.floor)[0])

    def _narrow_cell(self, _: ExportedRow, body: dict[str, Any]) -> None:
        """Remove the grants above a stage; `restart` begins an attempt."""
        stage, highest = body["from_stage"], (cell := self.get_cell(body)).stages[-1]
        self.note_if(stage != highest, f"begins at {stage}, but {highest} was the highest")
        cell.keep_grants(cell.stages.index(body["to_stage"]))
        cell.floor = float(body.get("confidence_floor") or cell.floor)  # an alarm raised it
        if body.get("restart"):
            cell.restart(self.since)

    def _expire_grant(self, row: ExportedRow, body: dict[str, Any]) -> None:
        """Remove a grant that ended, and those above it."""
        cell, stage, until = self.get_cell(body), body["stage"], body["until"]
        ends = {grant.stage: grant.until for grant in cell.grants}
        is_wrong = ends.get(stage) != until or row.at < until
        self.note_if(is_wrong, f"ends a grant of {stage} that does not end then")
        if stage in ends:
            cell.keep_grants(cell.stages.index(stage) - 1)

    def _apply_policy(self, row: ExportedRow, body: dict[str, Any]) -> None:
        """Put a policy in force; changed cells begin an attempt, cleared ones lose grants too."""
        number, last, proposal = body["number"], self.policy_number, body["proposal"]
        if proposal:
            self._take_proposal(row, "policy", about=body["policy_hash"])
        self.note_if(bool(body["loosens"]) and not proposal, "loosens without a proposal")
        self.note_if(number != last + 1, f"has the number {number} after {last}")
        self.policy_number, self.policy_hash = number, body["policy_hash"]
        self._rename_cells(list(zip(body.get("renamed", ()), body.get("former", ()), strict=True)))
        cleared = body["cleared"]
        for place, version in product(body["restarted"], self.starts):
            cell = self.cells.get((place["site"], place["window"], version))
            if cell is not None and cell.of_year and place not in cleared:
                cell.restart(self.since)
        for place, version in product(cleared, self.starts):
            cell = self.get_cell(place, version)
            cell.restart(self.since)
            cell.grants, cell.suspended_by = [], set()

    def _rename_cells(self, renames: list[tuple[dict[str, str], dict[str, str]]]) -> None:
        """Continue stops and years of cells; of two years, the one with less risk left."""
        for stop in self.stops.values():
            stop["cells"] = stop["cells"] + [new for new, old in renames if old in stop["cells"]]
        for new, former in renames:
            names = [(cell["site"], cell["window"]) for cell in (former, new)]
            if years := [self.years[name] for name in names if name in self.years]:
                self.years[names[1]] = max(years)

    def _correct_clock(self, row: ExportedRow, body: dict[str, Any]) -> None:
        """Set the ledger's time back; grants that don't span the correction end."""
        previous = body["previous_time"]
        text, is_later = format_instant(previous), previous >= max(self.at, row.at)
        is_right = is_later and text in self.confirmed
        self.note_if(not is_right, f"corrects {text}, which nobody confirmed to be ahead")
        for cell in self.cells.values():
            cell.keep_grants(cell.count_holding(row.at, previous))
            cell.attempt_since = min(cell.attempt_since, row.at)
        self.starts = {name: min(at, row.at) for name, at in self.starts.items()}
        self.at = row.at

    _METHODS: ClassVar = {  # of the kinds that `_apply_short_row` leaves out
        "ProposalRaised": _raise_proposal, "Approved": _approve_proposal,
        "FactsConfirmed": _confirm_facts, "IncidentOpened": _open_incident,
        "Widened": _change_grants, "Renewed": _change_grants, "TakenOver": _change_grants,
        "PolicyApplied": _apply_policy, "Narrowed": _narrow_cell, "GrantExpired": _expire_grant,
        "AttemptsBegan": _begin_attempts, "ClockCorrected": _correct_clock,
    }  # fmt: skip


def check_heads(rows: list[ExportedRow], path: Path, public_key: bytes) -> tuple[int, list[str]]:
    """Return how many signed heads of a file are among the rows, and what differs."""
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - may be missing
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415
    except ImportError as error:
        raise UnreadableError("checkpoints need `pip install cryptography`") from error
    key = ed25519.Ed25519PublicKey.from_public_bytes(public_key)
    count, differences, hashes = 0, [], {row.revision: row.hash for row in rows}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        head = json.loads(line)
        if not isinstance(head, dict) or {k: type(head[k]) for k in head} != CHECKPOINT:
            raise UnreadableError(f"{path}, line {number}: is no checkpoint")
        content = {name: head[name] for name in ("ledger", "revision", "hash", "at")}
        signed = f"rollout-checkpoint-1\n{format_canonical(content)}".encode()
        is_own, own = head["ledger"] == rows[0].rollout, hashes.get(head["revision"], "missing")
        problem = f"signed another; it is {own}" * (is_own and own != head["hash"])
        try:
            key.verify(bytes.fromhex(head["signature"]), signed)
        except (InvalidSignature, ValueError):
            problem = "is not signed by this key"
        count += is_own and not problem
        name = f"row {head['revision']}: the checkpoint of {format_instant(head['at'])}"
        differences += [f"{name} {problem}"] * bool(problem)
    if not count and not differences:
        differences.append(f"row {len(rows)}: no checkpoint is of the ledger {rows[0].rollout}")
    return count, differences


def verify_ledger(options: argparse.Namespace) -> dict[str, Any]:
    """Return what was found, as JSON values; instants are microseconds, as in a ledger."""
    heads, rows, differences = 0, [], []
    try:
        with options.ledger.open("rb") as lines:
            for row in read_rows(lines):
                rows.append(row)  # noqa: PERF402 - a later one may be broken
    except BrokenChainError as error:
        if not rows:
            raise UnreadableError(str(error)) from error
        differences = [f"{error}. It and the rows after it were left out."]
    if options.checkpoint:
        heads, problems = check_heads(rows, options.checkpoint, options.public_key)
        differences += problems
    if options.head and options.head.strip().lower() not in {row.hash for row in rows}:
        differences.append(f"row {len(rows)}: no row up to it has the hash {options.head}")
    events = [row for row in rows if row.rollout != ACCESS_LEDGER]
    differences += RecomputedState(events).differences
    at = (options.at - EPOCH) // timedelta(microseconds=1) if options.at else None
    last = max((row.revision for row in rows if at is None or row.at <= at), default=0)
    if options.revision not in {None, *range(1, len(rows) + 1)}:
        differences.append(f"row {options.revision}: is not there; rows are 1 to {len(rows)}")
    state = RecomputedState(events[: options.revision or last])
    counts = {"rows": len(rows), "erased_texts": sum(row.erased for row in rows)}
    names = {"ledger": rows[0].rollout, "head": rows[-1].hash, **counts}
    described = describe_state(state, max(at or 0, state.at))
    return {**names, "signed_heads": heads, "differences": differences, **described}


def describe_state(state: RecomputedState, at: int) -> dict[str, Any]:
    """Return what holds at an instant, and the last approvals."""
    cells = [
        {
            **dict(zip(("site", "window", "version"), key, strict=True)),
            "stage": state.find_stage(*key, at), "withheld": state.find_withholding(*key),
            "attempt": cell.attempt, "attempt_since": cell.attempt_since, "of_year": cell.of_year,
            "grants": [{**asdict(grant), "lapsed": grant.until <= at} for grant in cell.grants],
        }
        for key, cell in sorted(state.cells.items())
    ]  # fmt: skip
    head = {"revision": state.revision, "at": at, "era": state.era}
    policy = {"number": state.policy_number, "hash": state.policy_hash}
    tables = {"stops": list(state.stops.values()), "last_approvals": state.approvals[-5:]}
    return {**head, "policy": policy, "cells": cells, **tables}


def describe_row(row: ExportedRow) -> dict[str, Any]:
    """Return the body of a row, with who wrote it and when."""
    return {**row.body, "revision": row.revision, "at": row.at, "by": row.actor}


def format_instant(micros: int) -> str:
    """Return an instant as ISO 8601, or the number if it lies outside the calendar."""
    try:
        return (EPOCH + timedelta(microseconds=micros)).isoformat()
    except (OverflowError, TypeError):
        return str(micros)


def format_lines(result: dict[str, Any]) -> Iterator[str]:
    """Yield the result as lines of text."""
    yield f"{result['ledger']}: {result['rows']} rows, head {result['head']}"
    yield f"{result['erased_texts']} texts erased, {result['signed_heads']} signed heads found"
    yield f"{len(result['differences']) or 'no'} differences"
    yield from (f"  {problem}" for problem in result["differences"])
    if result["ledger"] == ACCESS_LEDGER:
        return
    at, era = format_instant(result["at"]), f"era {result['era']} (each restore begins one)"
    yield f"after row {result['revision']} at {at}: policy {result['policy']['number']}, {era}"
    for cell in result["cells"]:
        ends = [f"{g['stage']} until {format_instant(g['until'])}" for g in cell["grants"]]
        begun = f"attempt {cell['of_year'] or 'not counted yet'}, start {cell['attempt']}"
        notes = "; ".join([begun, *filter(None, [cell["withheld"]]), *ends])
        yield f"  {cell['site']} · {cell['window']} {cell['version']}: {cell['stage']} ({notes})"
    for stop in result["stops"]:
        places = ", ".join(f"{cell['site']} · {cell['window']}" for cell in stop["cells"])
        yield f"stop {stop['stop']} of {stop['by']} since {format_instant(stop['at'])}: {places}"
    for approval in result["last_approvals"]:
        account = f"{approval['by']} ({', '.join(approval['groups'])}) {approval['proposal']}"
        yield f"approval in row {approval['revision']}: {account}: {approval['of']}"


def main(arguments: list[str] | None = None) -> int:
    """Print what was found; return 0, or 1 if something differs, or 2 without a ledger."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("ledger", type=Path, help="exported ledger, one row per line")
    parser.add_argument("--checkpoint", type=Path, help="file of signed heads")
    parser.add_argument("--public-key", type=bytes.fromhex, help="public key in hex")
    parser.add_argument("--head", help="hash of a row that you noted")
    parser.add_argument("--revision", type=int, help="show the state after this row")
    parser.add_argument("--at", type=datetime.fromisoformat, help="instant with offset, ISO 8601")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(arguments)
    if bool(options.checkpoint) != bool(options.public_key):
        parser.error("--checkpoint and --public-key belong together")
    try:
        data = verify_ledger(options)
    except (UnreadableError, OSError, ValueError, TypeError, LookupError) as error:
        print(f"{options.ledger}: can't be verified: {error}", file=sys.stderr)
        return 2
    # what a forger typed must not move the cursor of a terminal
    text = ("".join(c if c.isprintable() else repr(c)[1:-1] for c in x) for x in format_lines(data))
    print(json.dumps(data, indent=2) if options.json else "\n".join(text))
    return 1 if data["differences"] else 0


if __name__ == "__main__":
    sys.exit(main())
