"""What a cell says of its next gate: what it still asks for, and where the policy ends the way."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from markupsafe import Markup

from api.console.page.cell_view import Saying, Seen, open_here, say
from api.console.page.figures import bound_of, line_of, value_of
from api.console.page.text import first_large
from api.console.page.time_format import took
from api.console.page.waiting_text import wave
from rollout.core.calendar.sites import SHADOW
from rollout.core.policy.policy import NEVER
from rollout.core.scope.waves import wave_holds
from rollout.reports.figures.evidence_facts import ConditionFacts, EvidenceFacts
from rollout.reports.text.formatting import number, several

SILENT: Final = timedelta(days=1)  # beyond its grace a case of a day ago has been counted
NOT_ON_COURSE: Final = 0.5
LACKS: Final = re.compile(r"(\d+) of (\d+) (judged units|reviewers|days)")


def holding(seen: Seen) -> Iterator[Saying]:
    """Tell what the next gate still asks for; where a proposal is open, it asks for nothing."""
    main = seen.main
    if main is None or main.gate is None or any(p.version == main.version for p in open_here(seen)):
        return
    gate, policy = main.gate, seen.policy
    yield from (_too_few(line, main) for line in gate.lacks if LACKS.fullmatch(line))
    for condition in gate.conditions:
        if not condition.met:
            yield _below(condition)
    if main.missing > policy.evidence.missing_at_most * main.closed:
        most = f"{policy.evidence.missing_at_most * 100:g} %"
        says = say(
            "{} of {} cases had no verdict ({}, at most {}). Reviewers are the way, not time.",
            number(main.missing), number(main.closed),
            value_of("missing", main.missing / main.closed), most,
        )  # fmt: skip
        yield Saying("missing verdicts", "mute", "Held: missing verdicts", says)
    if wave_holds(seen.scope, policy, seen.cell, policy.rungs.index(gate.to), seen.at):
        yield Saying("wave", "mute", "Held: wave", wave(seen))


def _too_few(line: str, main: EvidenceFacts) -> Saying:
    found = LACKS.fullmatch(line)
    assert found is not None  # noqa: S101 - asked before
    have, need, what = int(found[1]), int(found[2]), found[3]
    more = need - have
    if what == "days":
        text = f"Needs {several(more, 'more day', 'more days')} at this stage ({have} of {need})."
    elif what == "reviewers":
        people = several(more, "more person", "more people")
        text = f"Needs the verdicts of {people} ({have} of {need})."
    else:
        decisions = several(more, "more blind decision")
        text = f"Needs {decisions} ({number(have)} of {number(need)}){_pace(more, main.per_day)}."
    return Saying("too few", "mute", "Held: too few", say("{}", text))


def _pace(more: int, per_day: float | None) -> str:
    """Say how long it takes at the pace of the last two weeks, "" where there was none."""
    if not per_day:
        return ""
    days = max(1, round(more / per_day))
    return f", about {several(days, 'day')} at {per_day:,.0f} a day" if per_day >= 0.5 else ""


def _below(condition: ConditionFacts) -> Saying:
    c, name = condition, subject(condition.condition)
    line = line_of(c.measure, c.line)
    if c.n == 0:
        says = say("No data yet on: {}.", c.condition)
        return Saying("too few", "mute", "Held: too few", says)
    if c.measure == "parity" or c.bound is None:
        says = say("{}: evidence {:.1f} of {:.1f}.", first_large(c.condition), c.log_e, c.needed)
        return Saying("below the line", "mute", "Held: below the line", says)
    wrong = c.estimate is not None and (c.estimate < c.line) == c.at_least and c.estimate != c.line
    if wrong and (c.below is None or c.below > NOT_ON_COURSE):
        says = say(
            "At the present {} ({}) the line of {} is more likely never met. "
            "Look at the divergences.",
            name, value_of(c.measure, c.estimate), line,
        )  # fmt: skip
        return Saying("not on course", "mute", "Held: not on course", says)
    bound = bound_of(c.measure, c.bound, c.line, at_least=c.at_least)
    says = say("{} is {}; the line is {}.{}", first_large(name), bound, line, _ways_on(c))
    return Saying("below the line", "mute", "Held: below the line", says)


def _ways_on(c: ConditionFacts) -> str:
    if not c.further:
        return ""
    likelier = ninety = ""
    if c.median is not None and c.median > c.further:
        likelier = f"; likelier {number(c.median)}"
        if c.ninety is not None and c.ninety > c.median:
            ninety = f", 9 of 10 times fewer than {number(c.ninety)}"
    return f" Needs {number(c.further)} more that agree{likelier}{ninety}."


def subject(condition: str) -> str:
    """Return what a condition is about: its measure with its label.

    >>> subject("recall of bear at least 80 %")
    'recall of bear'
    """
    for word in (" at least ", " at most "):
        before, found, _ = condition.rpartition(word)
        if found:
            return before
    return condition


def rejected(seen: Seen) -> Iterator[Saying]:
    """Tell of the quiet time after a rejection."""
    main = seen.main
    if main is None:
        return
    quiet = seen.scope.state(seen.cell, main.version).quiet_until
    if quiet is not None and seen.at < quiet:
        says = say("A proposal was rejected: nothing is raised before {}.", seen.clock(quiet))
        yield Saying("rejected", "mute", "Held: rejected", says)


def ceiling(seen: Seen) -> Iterator[Saying]:
    """Tell where the policy ends the way up, and a trial everything."""
    policy, cell = seen.policy, seen.cell
    most, ends = policy.ceiling(cell, seen.at), policy.ends(cell)
    if ends != NEVER and seen.at >= ends:
        says = say(
            "The trial here ended {}: the policy allows no more than {}.", seen.clock(ends), SHADOW
        )
        yield Saying("ceiling", "mute", "At its ceiling", says)
        return
    if ends != NEVER:
        says = say(
            "The trial here ends {}: from then on people decide everything.", seen.clock(ends)
        )
        yield Saying("", "", "", says)
    top = len(policy.stages)
    if seen.held >= most and most < top:
        where = f" by {cell.window}" if len(policy.windows) > 1 else ""
        says = say("The policy allows no more than {} here{}.", policy.rungs[most], where)
        yield Saying("ceiling", "mute", "At its ceiling", says)
    elif seen.held == top:
        yield Saying("", "", "", Markup("Nothing lies above this stage."))
    elif policy.gate(seen.held + 1, cell) is None:
        says = say("The policy has no gate to {} here.", policy.rungs[seen.held + 1])
        yield Saying("", "", "", says)


def no_data(seen: Seen) -> Iterator[Saying]:
    """Tell of silence: nothing counted, or nothing for a day."""
    last = seen.row.last_case
    if last is None:
        text = (
            "No case from here has been counted yet. No data never widens."
            if seen.scope.versions
            else "No version was ever seen: the first prediction brings one. No data never widens."
        )
        yield Saying("no data", "mute", "No data", Markup("{}").format(text))
    elif seen.at - last > SILENT + seen.policy.evidence.grace:
        says = say(
            "No case from here for {}: the last one that was counted is of {}. "
            "No data never widens.",
            took(seen.at - last), seen.clock(last),
        )  # fmt: skip
        yield Saying("no data", "mute", "No data", says)
