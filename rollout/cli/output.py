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
    field_values = " ".join(str(body[key]) for key in SHOWN if body.get(key))
    return f"{event['at']} {event['kind']} {field_values}".rstrip()


def written_text(answer: Answer) -> str:
    """Say what a command wrote, what was left out, and what it comes to."""
    lines = [event_text(event) for event in answer["events"]] or ["nothing changed"]
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


def status_text(found: Answer) -> str:
    """Write a status: a line for each cell, proposal and stop, with what comes next."""
    return "\n".join(_status(found))


def _status(found: Answer) -> Iterator[str]:
    rollout_overview = found["rollout"]
    counting_text = (
        f"last tick {rollout_overview['ticked_at'] or 'never'}, {rollout_overview['pending']}"
        " pending"
    )
    yield (
        f"{rollout_overview['name']}: policy {rollout_overview['policy']}, revision"
        f" {rollout_overview['revision']}, {counting_text}"
    )
    if rollout_overview["undelivered"]:
        yield (
            f"  {rollout_overview['undelivered']} undelivered: see `rollout deliveries"
            f" {rollout_overview['name']}`"
        )
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
    version_text = f" by {cell['version']}" if cell["version"] else ""
    withholding_texts = (
        [f"suspended by {', '.join(cell['suspended_by'])}"] if cell["suspended_by"] else []
    )
    withholding_texts += ["stopped"] if cell["stops"] else []
    withholding_texts += [f"until {cell['until']}"] if cell["until"] else []
    return "; ".join([f"{_named(cell)}: {cell['stage']}{version_text}", *withholding_texts])


def proposals_text(found: list[Any]) -> str:
    """Write proposals, three lines each."""
    lines = [line for proposal in found for line in _proposal(proposal)]
    return "\n".join(lines) or "no proposal needs approval"


def _proposal(one: Answer) -> Iterator[str]:
    cell = _named(one) if one["site"] else one["about"]
    summary = f"{one['kind']} of {cell} {one['version']} {one['to']}".rstrip()
    approvers = ", ".join(approval["by"] for approval in one["approvals"]) or "no one yet"
    state = f"{one['state']} until {one['expires_at']}" if one["state"] == "open" else one["state"]
    needs = ", ".join(one["required_approvals"])
    yield f"  {one['id']}: {summary}; needs {needs}; approved by {approvers}; {state}"
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
    empty_text = "no incidents" if every else "no open incidents; --all lists acknowledged ones too"
    return "\n".join(f"  {_incident(incident)}" for incident in found) or empty_text


def _incident(one: Answer) -> str:
    location = f" {_named(one)} {one['version']}".rstrip() if one["site"] else ""
    acknowledgement = f"; acknowledged by {one['acknowledged_by']}: {one['note']}".rstrip(": ")
    summary = (
        f"{one['id']} {one['opened_at']} {one['kind']}{location}: {one['effect']}: {one['reason']}"
    )
    return f"{summary}{acknowledgement}" if one["acknowledged_by"] else summary


def changes_text(planned: Answer) -> str:
    """Say what a policy would change."""
    changes = planned["changes"]
    lines = [f"Applied to {planned['rollout']} now, the policy {OUTCOMES[changes['outcome']]}"]
    labels = {
        "loosens": "looser",
        "required_approvals": "needs approval of",
        "narrowed": "narrowed",
        "restarted": "new attempt",
        "cleared": "loses grants and evidence",
        "voided": "proposal becomes void",
    }
    for key, label in labels.items():
        lines += [f"  {label}: {change}" for change in changes[key]]
    return "\n".join(lines)


OUTCOMES = {
    "create": "creates the rollout, with every cell in shadow",
    "unchanged": "changes nothing: it is in force, or already proposed",
    "apply": "takes effect at once",
    "propose": "needs approval",
}
