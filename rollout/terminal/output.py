"""Print answers on a terminal, from a service or the local database alike."""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

JsonObject = Mapping[str, Any]
JsonFlag = Annotated[bool, typer.Option("--json", help="print JSON and nothing else")]
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


def print_command_result(answers: list[Any], *, as_json: bool) -> None:
    """Print the result of a command that changed a rollout."""
    (result,) = answers
    print_answer(result, format_command_result(result), as_json=as_json)


def format_changes(preview: JsonObject) -> str:
    """Return the changes that a policy would make, as text."""
    changes = preview["changes"]
    lines = [f"Applied to {preview['rollout']} now, the policy {OUTCOME_TEXTS[changes['outcome']]}"]
    labels = {
        "looser_texts": "looser",
        "required_approvals": "needs approval of",
        "narrowed": "narrowed",
        "restarted": "evidence starts anew",
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
