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
            says = say(
                "{} since {}. It waits for {} until {}.",
                _met(seen, proposal), seen.clock(proposal.raised_at), missing(proposal),
                seen.clock(proposal.expires_at),
            )  # fmt: skip
            yield Saying("eligible", "note", "Eligible", says)


def _met(seen: Seen, proposal: Proposal) -> str:
    if proposal.kind == "takeover":
        holder = seen.scope.holder(seen.cell)
        instead = f" in place of {holder}" if holder else ""
        return f"{proposal.version} meets every condition for {proposal.to}{instead}"
    by = "" if proposal.raised_by == ENGINE else f" (proposed by {proposal.raised_by})"
    return f"Every condition for {proposal.to} is met{by}"


def _approved(seen: Seen, proposal: Proposal) -> Iterator[Saying]:
    rung = seen.policy.rungs.index(proposal.to) if proposal.to in seen.policy.rungs else 0
    what = "Approved" if proposal.kind == "widening" else f"The {proposal.kind} is approved"
    freeze = seen.policy.frozen(seen.cell, seen.at)
    if freeze is not None:
        ends = next_change(freeze.hours, seen.policy.site[seen.cell.site], seen.at)
        when = "" if ends is None else say(", {}", seen.clock(ends))
        says = say("{}. Takes effect after the freeze{} ({}).", what, when, freeze.reason)
        yield Saying("approved", "mute", "Held: freeze", says)
    elif proposal.kind == "widening" and wave_holds(
        seen.scope, seen.policy, seen.cell, rung, seen.at
    ):
        yield Saying("approved", "mute", "Held: wave", say("{}. {}", what, wave(seen)))
    elif proposal.kind != "renewal" and settling(seen.scope, seen.policy, seen.at):
        yield Saying("approved", "mute", "Held: settling", say("{}. {}", what, _settling(seen)))
    elif seen.policy.observe:
        says = say("{}. The policy only observes: nothing is applied.", what)
        yield Saying("approved", "mute", "Held: observing", says)
    else:
        tick = seen.policy.tick
        following = instant(slot_after(seen.at + timedelta(microseconds=1), tick), tick)
        says = say("{}. Takes effect with the next tick, {}.", what, seen.clock(following))
        yield Saying("approved", "mute", "Approved", says)


def wave(seen: Seen) -> Markup:
    """Say for which sites a cell waits, and until when where that can be told."""
    waves = seen.policy.waves
    assert waves is not None  # noqa: S101 - a wave holds it
    ahead, opens = wave_opens(seen.scope, seen.policy, seen.cell, seen.at)
    sites = [cell.site for cell in ahead]
    names = listed(sites) if len(sites) < 4 else f"{len(sites)} sites of an earlier wave"
    verb = "has" if len(sites) == 1 else "have"
    share = "" if waves.share >= 1 else f" {waves.share * 100:g} % of"
    when = Markup("") if opens is None else say(": from {}", seen.clock(opens))
    return say(
        "Waits until{} {} {} been {} for {} in the same window{}.",
        share, names, verb, waves.stage, took(waves.hold), when,
    )  # fmt: skip


def _settling(seen: Seen) -> Markup:
    waves = seen.policy.waves
    assert waves is not None and waves.at_once is not None  # noqa: S101, PT018 - settling says so
    recent = [(at, c) for c, at in seen.scope.widened_at.items() if seen.at - at < waves.settle]
    recent.sort(reverse=True)
    at, cell = recent[waves.at_once - 1]
    many = several(waves.at_once, "cell settles", "cells settle")
    return say("{} at once at most: after {}, {}.", many, str(cell), seen.clock(at + waves.settle))
