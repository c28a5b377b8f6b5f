"""What a cell says of its open proposals: whom they wait for, or which time."""

from collections.abc import Iterator
from datetime import timedelta

from markupsafe import Markup

from api.console.page.cell_view import Saying, Seen, missing, open_here, say
from api.console.page.time_format import took
from rollout.core.calendar.opening_hours import next_change
from rollout.core.scope.scope import ENGINE, Proposal
from rollout.core.scope.waves import settling, wave_holds, wave_opens
from rollout.reports.text.formatting import listed, several
from rollout.tally.slots import instant, slot_after


def eligible(seen: Seen) -> Iterator[Saying]:
    """Tell of proposals that wait for people, or are approved and wait for their time."""
    for proposal in open_here(seen):
        if proposal.approved:
            yield from _approved(seen, proposal)
        elif proposal.kind != "renewal":
            text = say(
                "{} since {}. It waits for {} until {}.",
                _met(seen, proposal), seen.clock(proposal.raised_at), missing(proposal),
                seen.clock(proposal.expires_at),
            )  # fmt: skip
            yield Saying("eligible", "note", "Eligible", text)


def _met(seen: Seen, proposal: Proposal) -> str:
    if proposal.kind == "takeover":
        acting_version = seen.scope.holder(seen.cell)
        replaced_text = f" in place of {acting_version}" if acting_version else ""
        return f"{proposal.version} meets every condition for {proposal.to}{replaced_text}"
    actor_text = "" if proposal.raised_by == ENGINE else f" (proposed by {proposal.raised_by})"
    return f"Every condition for {proposal.to} is met{actor_text}"


def _approved(seen: Seen, proposal: Proposal) -> Iterator[Saying]:
    stage_level = seen.policy.rungs.index(proposal.to) if proposal.to in seen.policy.rungs else 0
    subject = "Approved" if proposal.kind == "widening" else f"The {proposal.kind} is approved"
    freeze = seen.policy.frozen(seen.cell, seen.at)
    if freeze is not None:
        freeze_end = next_change(freeze.hours, seen.policy.site[seen.cell.site], seen.at)
        end_text = "" if freeze_end is None else say(", {}", seen.clock(freeze_end))
        text = say("{}. Takes effect after the freeze{} ({}).", subject, end_text, freeze.reason)
        yield Saying("approved", "mute", "Held: freeze", text)
    elif proposal.kind == "widening" and wave_holds(
        seen.scope, seen.policy, seen.cell, stage_level, seen.at
    ):
        yield Saying("approved", "mute", "Held: wave", say("{}. {}", subject, wave(seen)))
    elif proposal.kind != "renewal" and settling(seen.scope, seen.policy, seen.at):
        yield Saying("approved", "mute", "Held: settling", say("{}. {}", subject, _settling(seen)))
    elif seen.policy.observe:
        text = say("{}. The policy only observes: nothing is applied.", subject)
        yield Saying("approved", "mute", "Held: observing", text)
    else:
        tick = seen.policy.tick
        next_tick = instant(slot_after(seen.at + timedelta(microseconds=1), tick), tick)
        text = say("{}. Takes effect with the next tick, {}.", subject, seen.clock(next_tick))
        yield Saying("approved", "mute", "Approved", text)


def wave(seen: Seen) -> Markup:
    """Say for which sites a cell waits, and until when where that can be told."""
    waves = seen.policy.waves
    assert waves is not None  # noqa: S101 - a wave holds it
    cells_ahead, opens_at = wave_opens(seen.scope, seen.policy, seen.cell, seen.at)
    sites = [cell.site for cell in cells_ahead]
    names = listed(sites) if len(sites) < 4 else f"{len(sites)} sites of an earlier wave"
    verb = "has" if len(sites) == 1 else "have"
    share_text = "" if waves.share >= 1 else f" {waves.share * 100:g} % of"
    opening_text = Markup("") if opens_at is None else say(": from {}", seen.clock(opens_at))
    return say(
        "Waits until{} {} {} been {} for {} in the same window{}.",
        share_text, names, verb, waves.stage, took(waves.hold), opening_text,
    )  # fmt: skip


def _settling(seen: Seen) -> Markup:
    waves = seen.policy.waves
    assert waves is not None and waves.at_once is not None  # noqa: S101, PT018 - settling says so
    recent_cells = [
        (at, cell_item)
        for cell_item, at in seen.scope.widened_at.items()
        if seen.at - at < waves.settle
    ]
    recent_cells.sort(reverse=True)
    at, cell = recent_cells[waves.at_once - 1]
    count_text = several(waves.at_once, "cell settles", "cells settle")
    return say(
        "{} at once at most: after {}, {}.", count_text, str(cell), seen.clock(at + waves.settle)
    )
