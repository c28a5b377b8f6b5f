"""The command that lists deliveries of reports, retries a failed one, or sends a report."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rollout.features.delivery.delivery import load_deliveries, queue_report, requeue_delivery
from rollout.terminal.remote import (
    ActorName,
    JsonFlag,
    RolloutName,
    ServerUrl,
    build_path,
    print_answer,
)
from rollout.terminal.runner import NO_LIMIT, LocalContext, build_runner, list_items

NO_DELIVERIES = "no deliveries yet; `reports` in the policy defines what is sent to which channel"


def manage_deliveries(  # noqa: PLR0913, PLR0917 - one parameter for each option
    rollout: RolloutName,
    failed: Annotated[bool, typer.Option("--failed", help="only failed deliveries")] = False,
    again: Annotated[int | None, typer.Option("--retry", help="retry this delivery, by id")] = None,
    report: Annotated[int | None, typer.Option("--send", help="send this report, by id")] = None,
    to: Annotated[
        list[str] | None, typer.Option(help="with --send: channel to send to (repeatable)")
    ] = None,
    by: ActorName = "",
    server: ServerUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """List deliveries of reports, retry a failed one, or send a report.

    Example: `rollout deliveries ramps`

    Retry: `rollout deliveries ramps --retry 7 --by ana`

    Send: `rollout deliveries ramps --send 12 --to rangers --by ana`
    """
    if report is not None:
        queued_deliveries = build_runner(server, by).send(
            "POST",
            build_path(rollout, "deliveries"),
            lambda context: _queue_report(context, rollout, report, to),
            {"report": report, "channels": to or []},
        )
        print_answer(
            queued_deliveries,
            "\n".join(map(format_delivery, queued_deliveries["items"])),
            as_json=as_json,
        )
        return
    if again is not None:
        retried_delivery = build_runner(server, by).send(
            "POST",
            build_path(rollout, "deliveries", str(again), "retry"),
            lambda context: requeue_delivery(
                context.database, context.caller, rollout, again, at=context.at
            ),
        )
        print_answer(retried_delivery, format_delivery(retried_delivery), as_json=as_json)
        return
    delivery_list = list_items(
        server,
        build_path(rollout, "deliveries"),
        {"state": "failed" if failed else "all"},
        None,
        lambda context: load_deliveries(
            context.database,
            context.caller,
            rollout,
            state="failed" if failed else None,
            limit=NO_LIMIT,
        ),
    )
    print_answer(
        delivery_list,
        "\n".join(map(format_delivery, delivery_list)) or NO_DELIVERIES,
        as_json=as_json,
    )


def _queue_report(
    context: LocalContext, rollout: str, report: int, to: list[str] | None
) -> dict[str, Any]:
    """Queue a report and return its deliveries as the route does."""
    if not to:
        raise ValueError("no channel is named; add --to CHANNEL, as in the policy")
    return {
        "items": queue_report(context.database, context.caller, rollout, report, to, at=context.at)
    }


def format_delivery(delivery: Mapping[str, Any]) -> str:
    """Return a delivery as a line: report, channel and state."""
    summary = (
        f"{delivery['id']} report {delivery['report']} to {delivery['channel']}"
        f" ({delivery['subject']})"
    )
    if delivery["state"] == "sent":
        return f"{summary}: sent {delivery['sent_at']}"
    error_text = f": {delivery['error']}" if delivery["error"] else ""
    attempts = delivery["attempts"]
    attempt_text = (
        f"after {attempts} {'try' if attempts == 1 else 'tries'}" if attempts else "not tried yet"
    )
    if delivery["state"] == "failed":
        return f"{summary}: failed {attempt_text}{error_text}"
    return f"{summary}: next try {delivery['next_at']}, {attempt_text}{error_text}"
