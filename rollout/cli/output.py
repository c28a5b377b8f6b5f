"""Format answers for a terminal, from a service or the local database alike."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import typer

from rollout.reports.text.guard_text import format_guard_reason
from rollout.reports.text.source_text import (
    CountedOutcomeSource,
    CountedSource,
    describe_outcome_sources,
    describe_sources,
)
from rollout.reports.text.state_text import describe_unopened_incidents
from rollout.reports.text.value_text import WEIGHTED_TEXT

JsonObject = Mapping[str, Any]
JsonFlag = Annotated[bool, typer.Option("--json", help="print JSON and nothing else")]
FROZEN_LOG_E_PATTERN = re.compile(
    r"log E (?P<log_e>-?[\d.]+) of (?P<needed>[\d.]+)"
    r"(?: over blocks [\d+ ]+| over sites [^()]+|(?P<audits> over audits [\d+. ]+))?"
    r" \(risk (?P<risk>[\d.e+-]+)\)$"
)
UNOPENED_FIELDS = ("kind", "site", "window", "unopened")
EVENT_FIELDS = (
    "proposal",
    "stop",
    "incident",
    "site",
    "window",
    "version",
    "stage",
    "from_stage",
    "to_stage",
)


def print_answer(answer: Any, text: str, *, as_json: bool) -> None:
    """Print an answer as JSON, or as its text."""
    typer.echo(json.dumps(answer) if as_json else text)


def print_warnings(warnings: Iterable[str]) -> None:
    """Print warnings on standard error, one per line."""
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)


def format_event(event: JsonObject) -> str:
    """Return an event as a line: time, kind and subject."""
    body = event["body"]
    field_values = " ".join(str(body[key]) for key in EVENT_FIELDS if body.get(key))
    return f"{event['at']} {event['kind']} {field_values}".rstrip()


def format_command_result(answer: JsonObject) -> str:
    """Return the events of a command, excluded targets, and the new revision."""
    lines = [format_event(event) for event in answer["events"]] or ["nothing changed"]
    lines += [
        f"excluded: {excluded_target['target']}: {excluded_target['reason']}"
        for excluded_target in answer.get("excluded", ())
    ]
    if any(event["kind"] == "ProposalRaised" for event in answer["events"]):
        lines.append("needs approval: `rollout proposals` shows the hash to approve it with")
    if answer.get("text"):
        lines.append(answer["text"])
    lines.append(f"revision {answer['revision']}, {answer['hash']}")
    return "\n".join(lines)


def format_status(rollout_status: JsonObject) -> str:
    """Return a status as text: cells with their next steps, proposals and stops."""
    return "\n".join(_iterate_status_lines(rollout_status))


def _iterate_status_lines(rollout_status: JsonObject) -> Iterator[str]:
    rollout_overview = rollout_status["rollout"]
    counting_text = (
        f"last tick {rollout_overview['ticked_at'] or 'never'}, {rollout_overview['pending']:,}"
        " units not counted yet"
    )
    yield (
        f"{rollout_overview['name']}: policy {rollout_overview['policy']}, ledger revision"
        f" {rollout_overview['revision']}, {counting_text}"
    )
    if rollout_overview["undelivered"]:
        yield (
            f"  {rollout_overview['undelivered']} undelivered: see `rollout deliveries"
            f" {rollout_overview['name']}`"
        )
    yield from _iterate_cell_lines(rollout_status["cells"])
    for proposal in rollout_status["proposals"]:
        yield from _format_proposal(proposal)
    for stop in rollout_status["stops"]["items"]:
        cells = ", ".join(_format_cell_name(cell) for cell in stop["cells"])
        drill = " (a drill)" if stop["drill"] else ""
        yield f"  {stop['id']}: stopped by {stop['by']}{drill}: {cells}"


def _iterate_cell_lines(cells: Iterable[JsonObject]) -> Iterator[str]:
    """Yield the state and next step of cells; cells that are equal share their lines."""
    names_by_text: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        key = (_format_cell_state(cell), cell["next_step"])
        names_by_text.setdefault(key, []).append(_format_cell_name(cell))
    for (state, next_step), names in names_by_text.items():
        yield f"  {', '.join(names)}: {state}"
        yield f"      {next_step}"


def _format_cell_name(cell: JsonObject) -> str:
    return f"{cell['site']} · {cell['window']}"


def _format_cell_state(cell: JsonObject) -> str:
    version_text = f" by {cell['version']}" if cell["version"] else ""
    withholding_texts = (
        [f"suspended by {', '.join(cell['suspended_by'])}"] if cell["suspended_by"] else []
    )
    withholding_texts += ["stopped"] if cell["stops"] else []
    withholding_texts += [f"until {cell['until']}"] if cell["until"] else []
    floor = cell.get("confidence_floor")  # services before floors lack it
    floor_texts = [f"for cases of confidence {floor:g} or more"] if floor else []
    state_text = " ".join([f"{cell['stage']}{version_text}", *floor_texts])
    return "; ".join([state_text, *withholding_texts])


def format_proposals(proposals: list[Any]) -> str:
    """Return proposals as text, three lines each."""
    lines = [line for proposal in proposals for line in _format_proposal(proposal)]
    return "\n".join(lines) or "no proposal needs approval"


def _format_proposal(proposal: JsonObject) -> Iterator[str]:
    cell = _format_cell_name(proposal) if proposal["site"] else proposal["about"]
    summary = f"{proposal['kind']} of {cell} {proposal['version']} {proposal['to']}".rstrip()
    approvers = ", ".join(approval["by"] for approval in proposal["approvals"]) or "no one yet"
    state = (
        f"{proposal['state']} until {proposal['expires_at']}"
        if proposal["state"] == "open"
        else proposal["state"]
    )
    groups = proposal["required_approvals"]
    needs = f"needs {len(groups)} approval{'s' if len(groups) != 1 else ''} ({', '.join(groups)})"
    yield f"  {proposal['id']}: {summary}; {needs}; approved by {approvers}; {state}"
    yield f"      {proposal['allows']}"
    for wait in proposal.get("waits_for", ()):
        yield f"      waits for the {wait['text']}"
    yield f"      --evidence-hash {proposal['evidence_hash']}"


def format_proposal_details(proposal: JsonObject, *, is_caller_known: bool) -> str:
    """Return a proposal with its frozen evidence, and why a known caller can't approve."""
    lines = list(_format_proposal(proposal))
    lines += [f"      {_format_reading(reading)}" for reading in proposal["readings"]]
    if proposal.get("attempt"):
        lines.append(f"      {proposal['attempt']}")
    if sources := [CountedSource(**source) for source in proposal.get("sources", ())]:
        lines.append(f"      {describe_sources(sources)}")
    outcome_sources = [CountedOutcomeSource(**s) for s in proposal.get("outcome_sources", ())]
    if outcome_sources:
        lines.append(f"      {describe_outcome_sources(outcome_sources)}")
    lines += [f"      {_format_import(evidence_import)}" for evidence_import in proposal["imports"]]
    if proposal["closed_reason"]:
        lines.append(f"      {proposal['closed_reason']}")
    if is_caller_known and proposal["state"] == "open" and not proposal["can_approve"]:
        lines.append(f"      you can't approve it: {proposal['cannot_approve_reason']}")
    return "\n".join(lines)


def _format_reading(reading: str) -> str:
    """Return a frozen reading with rounded figures; the ledger keeps all digits."""
    return FROZEN_LOG_E_PATTERN.sub(
        lambda match: (
            f"log E {float(match['log_e']):.2f}, needed {float(match['needed']):.2f}"
            f"{WEIGHTED_TEXT if match['audits'] else ''} (risk {float(match['risk']) * 100:.3g} %)"
        ),
        reading,
    )


def _format_import(evidence_import: JsonObject) -> str:
    files = ", ".join(evidence_import["files"])
    return (
        f"{evidence_import['cases']:,} cases are imported from {files}: "
        f"{evidence_import['by']} vouches for when they were received, "
        f"{evidence_import['received_since'][:10]} to {evidence_import['received_until'][:10]}"
    )


def format_incidents(incidents: list[Any], *, every: bool) -> str:
    """Return incidents as text, a line each."""
    empty_text = "no incidents" if every else "no open incidents; --all lists acknowledged ones too"
    lines = [f"  {_format_incident(incident)}" for incident in incidents]
    lines += dict.fromkeys(
        f"  {describe_unopened_incidents(*(incident[name] for name in UNOPENED_FIELDS))}"
        for incident in incidents
        if incident["unopened"]
    )
    return "\n".join(lines) or empty_text


def _format_incident(incident: JsonObject) -> str:
    location = (
        f", {_format_cell_name(incident)}, {incident['version']}".rstrip(", ")
        if incident["site"]
        else ""
    )
    reason = format_guard_reason(incident["reason"])
    acknowledgement = f"; acknowledged by {incident['acknowledged_by']}: {incident['note']}".rstrip(
        ": "
    )
    summary = (
        f"{incident['id']} {incident['opened_at']} {incident['kind']}{location}:"
        f" {incident['effect']}: {reason}"
    )
    return f"{summary}{acknowledgement}" if incident["acknowledged_by"] else summary


def format_changes(preview: JsonObject) -> str:
    """Return the changes that a policy would make, as text."""
    changes = preview["changes"]
    lines = [f"Applied to {preview['rollout']} now, the policy {OUTCOME_TEXTS[changes['outcome']]}"]
    labels = {
        "loosens": "looser",
        "required_approvals": "needs approval of",
        "narrowed": "narrowed",
        "restarted": "new attempt",
        "cleared": "loses grants and evidence",
        "voided": "proposal becomes void",
        "unfamiliar": "not familiar, decided by humans",
    }
    for key, label in labels.items():
        lines += [f"  {label}: {change}" for change in changes[key]]
    return "\n".join(lines)


OUTCOME_TEXTS = {
    "create": "creates the rollout, with every cell in shadow",
    "unchanged": "changes nothing: it is in force, or already proposed",
    "apply": "takes effect at once",
    "propose": "needs approval",
}
