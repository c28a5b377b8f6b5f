"""Format answers for a terminal, from a service or the local database alike."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import typer

Answer = Mapping[str, Any]
SHOWN = (
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


def tell(answer: Any, text: str, *, as_json: bool) -> None:
    """Print an answer as JSON, or as its text."""
    typer.echo(json.dumps(answer) if as_json else text)


def event_text(event: Answer) -> str:
    """Say an event in a line: when, what, and about what."""
    body = event["body"]
    own = " ".join(str(body[key]) for key in SHOWN if body.get(key))
    return f"{event['at']} {event['kind']} {own}".rstrip()


def written_text(answer: Answer) -> str:
    """Say what a command wrote, what was left out, and what it comes to."""
    lines = [event_text(event) for event in answer["events"]] or ["nothing changed"]
    lines += [f"excluded: {one['target']}: {one['reason']}" for one in answer.get("excluded", ())]
    if any(event["kind"] == "ProposalRaised" for event in answer["events"]):
        lines.append("needs approval: `rollout proposals` shows the hash to approve it with")
    if answer.get("text"):
        lines.append(answer["text"])
    lines.append(f"revision {answer['revision']}, {answer['hash']}")
    return "\n".join(lines)


def status_text(found: Answer) -> str:
    """Write a status: a line for each cell, proposal and stop, with what comes next."""
    return "\n".join(_status(found))


def _status(found: Answer) -> Iterator[str]:
    known = found["rollout"]
    counting = f"last tick {known['ticked_at'] or 'never'}, {known['pending']} pending"
    yield f"{known['name']}: policy {known['policy']}, revision {known['revision']}, {counting}"
    if known["undelivered"]:
        yield f"  {known['undelivered']} undelivered: see `rollout deliveries {known['name']}`"
    for cell in found["cells"]:
        yield f"  {_cell(cell)}"
        yield f"      {cell['next_step']}"
    for proposal in found["proposals"]:
        yield from _proposal(proposal)
    for stop in found["stops"]["items"]:
        cells = ", ".join(_named(cell) for cell in stop["cells"])
        drill = " (a drill)" if stop["drill"] else ""
        yield f"  {stop['id']}: stopped by {stop['by']}{drill}: {cells}"


def _named(cell: Answer) -> str:
    return f"{cell['site']} · {cell['window']}"


def _cell(cell: Answer) -> str:
    by = f" by {cell['version']}" if cell["version"] else ""
    held = [f"suspended by {', '.join(cell['suspended_by'])}"] if cell["suspended_by"] else []
    held += ["stopped"] if cell["stops"] else []
    held += [f"until {cell['until']}"] if cell["until"] else []
    return "; ".join([f"{_named(cell)}: {cell['stage']}{by}", *held])


def proposals_text(found: list[Any]) -> str:
    """Write proposals, three lines each."""
    lines = [line for proposal in found for line in _proposal(proposal)]
    return "\n".join(lines) or "no proposal needs approval"


def _proposal(one: Answer) -> Iterator[str]:
    cell = _named(one) if one["site"] else one["about"]
    what = f"{one['kind']} of {cell} {one['version']} {one['to']}".rstrip()
    approvers = ", ".join(approval["by"] for approval in one["approvals"]) or "no one yet"
    state = f"{one['state']} until {one['expires_at']}" if one["state"] == "open" else one["state"]
    needs = ", ".join(one["required_approvals"])
    yield f"  {one['id']}: {what}; needs {needs}; approved by {approvers}; {state}"
    yield f"      {one['allows']}"
    yield f"      --evidence-hash {one['evidence_hash']}"


def proposal_text(one: Answer, *, known: bool) -> str:
    """Write one proposal with its frozen evidence; where the caller is known, why they may not."""
    lines = [*_proposal(one), *(f"      {line}" for line in one["readings"])]
    if one["closed_reason"]:
        lines.append(f"      {one['closed_reason']}")
    if known and one["state"] == "open" and not one["can_approve"]:
        lines.append(f"      you may not: {one['cannot_approve_reason']}")
    return "\n".join(lines)


def incidents_text(found: list[Any], *, every: bool) -> str:
    """Write incidents, a line each."""
    none = "no incidents" if every else "no open incidents; --all lists acknowledged ones too"
    return "\n".join(f"  {_incident(one)}" for one in found) or none


def _incident(one: Answer) -> str:
    where = f" {_named(one)} {one['version']}".rstrip() if one["site"] else ""
    seen = f"; acknowledged by {one['acknowledged_by']}: {one['note']}".rstrip(": ")
    told = f"{one['id']} {one['opened_at']} {one['kind']}{where}: {one['effect']}: {one['reason']}"
    return f"{told}{seen}" if one["acknowledged_by"] else told


def changes_text(planned: Answer) -> str:
    """Say what a policy would change."""
    changes = planned["changes"]
    lines = [f"Applied to {planned['rollout']} now, the policy {OUTCOMES[changes['outcome']]}"]
    rows = {
        "loosens": "looser",
        "required_approvals": "needs approval of",
        "narrowed": "narrowed",
        "restarted": "new attempt",
        "cleared": "loses grants and evidence",
        "voided": "proposal becomes void",
    }
    for key, says in rows.items():
        lines += [f"  {says}: {what}" for what in changes[key]]
    return "\n".join(lines)


OUTCOMES = {
    "create": "creates the rollout, with every cell in shadow",
    "unchanged": "changes nothing: it is in force, or already proposed",
    "apply": "takes effect at once",
    "propose": "needs approval",
}
