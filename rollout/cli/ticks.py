"""`rollout tick`: count new evidence of a live rollout, and widen or narrow."""

import secrets

import typer

from rollout.live.clock import SystemClock
from rollout.live.rollout_state import Event, build_command_result
from rollout.live.tick_passes import Ticker
from rollout.terminal.local_database import open_database
from rollout.terminal.remote import (
    JsonFlag,
    PastInstant,
    RolloutName,
    format_event,
    parse_instant,
    print_answer,
)


def tick(rollout: RolloutName, at: PastInstant = None, as_json: JsonFlag = False) -> None:
    """Count new evidence and widen or narrow, on the local database, for one slot.

    `rollout serve` ticks by itself. Without a service, run this once a slot, by cron or a timer;
    a second tick in a slot changes nothing. Missed slots are made up for in the next tick. The
    database is ROLLOUT_DATABASE_URL (default: sqlite:///rollout.db), even if ROLLOUT_SERVER is set.

    Example: `rollout tick ramps`
    """
    with open_database() as database:
        ticker = Ticker(database, rollout, f"cli-{secrets.token_hex(4)}")
        # a tick of now takes a while; one of the past decides as of then
        get_time = SystemClock().now if at is None else None
        events = ticker.tick(parse_instant(at), get_time=get_time)
        result = None if events is None else build_command_result(database, rollout, events)
    if result is None:
        typer.echo(
            "[]"
            if as_json
            else "nothing to do: this slot is done, or another process is working on it"
        )
        return
    _print_events(result.events, as_json=as_json)


def _print_events(events: tuple[Event, ...], *, as_json: bool) -> None:
    rows = [
        {"at": event.at.isoformat(), "kind": event.kind, "by": event.by, "body": event.body}
        for event in events
    ]
    text = "\n".join(format_event(row) for row in rows)
    print_answer(rows, text or "nothing changed", as_json=as_json)
