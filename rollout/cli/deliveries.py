"""`rollout deliveries`: list deliveries of reports, retry one, or send a report."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rollout.cli.output import tell
from rollout.cli.plan_and_status import AsJson, By, Here, Name, Question, person
from rollout.cli.records_input import ALL, listed
from rollout.cli.remote import Server, path_of
from rollout.services.delivery.outbox import deliveries_of, retry, send_report

NONE = "no deliveries yet; `reports` in the policy defines what is sent to which channel"


def deliveries(  # noqa: PLR0913, PLR0917 - one parameter for each flag that a person may give
    rollout: Name,
    failed: Annotated[bool, typer.Option("--failed", help="only failed deliveries")] = False,
    again: Annotated[int | None, typer.Option("--retry", help="retry this delivery, by id")] = None,
    report: Annotated[int | None, typer.Option("--send", help="send this report, by id")] = None,
    to: Annotated[
        list[str] | None, typer.Option(help="with --send: channel to send to (repeatable)")
    ] = None,
    by: By = "",
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """List deliveries of reports, retry a failed one, or send a report.

    Example: `rollout deliveries ramps`

    Retry: `rollout deliveries ramps --retry 7 --by ana`

    Send: `rollout deliveries ramps --send 12 --to rangers --by ana`
    """
    if report is not None:
        body = {"report": report, "channels": to or []}
        request = Question(
            "POST",
            path_of(rollout, "deliveries"),
            lambda context: _sent(context, rollout, report, to),
            body,
        )
        (queued_deliveries,) = person(server, by).answer(request)
        tell(queued_deliveries, "\n".join(map(line, queued_deliveries["items"])), as_json=as_json)
        return
    if again is not None:
        path = path_of(rollout, "deliveries", str(again), "retry")
        request = Question(
            "POST",
            path,
            lambda context: retry(context.database, context.caller, rollout, again, at=context.at),
        )
        (retried_delivery,) = person(server, by).answer(request)
        tell(retried_delivery, line(retried_delivery), as_json=as_json)
        return
    state = "failed" if failed else "all"

    def here(me: Here) -> Any:
        state_filter = "failed" if failed else None
        return deliveries_of(me.database, me.caller, rollout, state=state_filter, limit=ALL).items

    delivery_list = listed(server, path_of(rollout, "deliveries"), {"state": state}, None, here)
    tell(delivery_list, "\n".join(map(line, delivery_list)) or NONE, as_json=as_json)


def _sent(me: Here, rollout: str, report: int, to: list[str] | None) -> dict[str, Any]:
    """Queue a report; return what the route answers."""
    if not to:
        raise ValueError("no channel is named; add --to CHANNEL, as in the policy")
    return {"items": send_report(me.database, me.caller, rollout, report, to, at=me.at)}


def line(one: Mapping[str, Any]) -> str:
    """Say of one delivery where it is."""
    summary = f"{one['id']} report {one['report']} to {one['channel']} ({one['subject']})"
    if one["state"] == "sent":
        return f"{summary}: sent {one['sent_at']}"
    error_text = f": {one['error']}" if one["error"] else ""
    attempts = one["attempts"]
    attempt_text = (
        f"after {attempts} {'try' if attempts == 1 else 'tries'}" if attempts else "not tried yet"
    )
    if one["state"] == "failed":
        return f"{summary}: failed {attempt_text}{error_text}"
    return f"{summary}: next try {one['next_at']}, {attempt_text}{error_text}"
