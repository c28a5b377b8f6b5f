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
    evidence = seen.main
    if (
        evidence is None
        or evidence.gate is None
        or any(proposal.version == evidence.version for proposal in open_here(seen))
    ):
        return
    gate, policy = evidence.gate, seen.policy
    yield from (
        _too_few(requirement, evidence)
        for requirement in gate.lacks
        if LACKS.fullmatch(requirement)
    )
    for condition in gate.conditions:
        if not condition.met:
            yield _below(condition)
    if evidence.missing > policy.evidence.missing_at_most * evidence.closed:
        limit = f"{policy.evidence.missing_at_most * 100:g} %"
        text = say(
            "{} of {} cases had no verdict ({}, at most {}). Reviewers are the way, not time.",
            number(evidence.missing), number(evidence.closed),
            value_of("missing", evidence.missing / evidence.closed), limit,
        )  # fmt: skip
        yield Saying("missing verdicts", "mute", "Held: missing verdicts", text)
    if wave_holds(seen.scope, policy, seen.cell, policy.rungs.index(gate.to), seen.at):
        yield Saying("wave", "mute", "Held: wave", wave(seen))


def _too_few(line: str, main: EvidenceFacts) -> Saying:
    match = LACKS.fullmatch(line)
    assert match is not None  # noqa: S101 - asked before
    count, needed, unit = int(match[1]), int(match[2]), match[3]
    missing_count = needed - count
    if unit == "days":
        text = (
            f"Needs {several(missing_count, 'more day', 'more days')} at this stage ({count} of"
            f" {needed})."
        )
    elif unit == "reviewers":
        reviewer_text = several(missing_count, "more person", "more people")
        text = f"Needs the verdicts of {reviewer_text} ({count} of {needed})."
    else:
        decision_text = several(missing_count, "more blind decision")
        text = (
            f"Needs {decision_text} ({number(count)} of"
            f" {number(needed)}){_pace(missing_count, main.per_day)}."
        )
    return Saying("too few", "mute", "Held: too few", say("{}", text))


def _pace(more: int, per_day: float | None) -> str:
    """Say how long it takes at the pace of the last two weeks, "" where there was none."""
    if not per_day:
        return ""
    days = max(1, round(more / per_day))
    return f", about {several(days, 'day')} at {per_day:,.0f} a day" if per_day >= 0.5 else ""


def _below(condition: ConditionFacts) -> Saying:
    facts, subject_text = condition, subject(condition.condition)
    threshold = line_of(facts.measure, facts.line)
    if facts.n == 0:
        text = say("No data yet on: {}.", facts.condition)
        return Saying("too few", "mute", "Held: too few", text)
    if facts.measure == "parity" or facts.bound is None:
        text = say(
            "{}: evidence {:.1f} of {:.1f}.",
            first_large(facts.condition),
            facts.log_e,
            facts.needed,
        )
        return Saying("below the line", "mute", "Held: below the line", text)
    is_worse = (
        facts.estimate is not None
        and (facts.estimate < facts.line) == facts.at_least
        and facts.estimate != facts.line
    )
    if is_worse and (facts.below is None or facts.below > NOT_ON_COURSE):
        text = say(
            "At the present {} ({}) the line of {} is more likely never met. "
            "Look at the divergences.",
            subject_text, value_of(facts.measure, facts.estimate), threshold,
        )  # fmt: skip
        return Saying("not on course", "mute", "Held: not on course", text)
    bound_text = bound_of(facts.measure, facts.bound, facts.line, at_least=facts.at_least)
    text = say(
        "{} is {}; the line is {}.{}",
        first_large(subject_text),
        bound_text,
        threshold,
        _ways_on(facts),
    )
    return Saying("below the line", "mute", "Held: below the line", text)


def _ways_on(c: ConditionFacts) -> str:
    if not c.further:
        return ""
    median_text = limit_text = ""
    if c.median is not None and c.median > c.further:
        median_text = f"; likelier {number(c.median)}"
        if c.ninety is not None and c.ninety > c.median:
            limit_text = f", 9 of 10 times fewer than {number(c.ninety)}"
    return f" Needs {number(c.further)} more that agree{median_text}{limit_text}."


def subject(condition: str) -> str:
    """Return what a condition is about: its measure with its label.

    >>> subject("recall of bear at least 80 %")
    'recall of bear'
    """
    for separator in (" at least ", " at most "):
        head, match, _ = condition.rpartition(separator)
        if match:
            return head
    return condition


def rejected(seen: Seen) -> Iterator[Saying]:
    """Tell of the quiet time after a rejection."""
    evidence = seen.main
    if evidence is None:
        return
    quiet_until = seen.scope.state(seen.cell, evidence.version).quiet_until
    if quiet_until is not None and seen.at < quiet_until:
        text = say("A proposal was rejected: nothing is raised before {}.", seen.clock(quiet_until))
        yield Saying("rejected", "mute", "Held: rejected", text)


def ceiling(seen: Seen) -> Iterator[Saying]:
    """Tell where the policy ends the way up, and a trial everything."""
    policy, cell = seen.policy, seen.cell
    ceiling_level, trial_end = policy.ceiling(cell, seen.at), policy.ends(cell)
    if trial_end != NEVER and seen.at >= trial_end:
        text = say(
            "The trial here ended {}: the policy allows no more than {}.",
            seen.clock(trial_end),
            SHADOW,
        )
        yield Saying("ceiling", "mute", "At its ceiling", text)
        return
    if trial_end != NEVER:
        text = say(
            "The trial here ends {}: from then on people decide everything.", seen.clock(trial_end)
        )
        yield Saying("", "", "", text)
    top_level = len(policy.stages)
    if seen.held >= ceiling_level and ceiling_level < top_level:
        window_text = f" by {cell.window}" if len(policy.windows) > 1 else ""
        text = say(
            "The policy allows no more than {} here{}.", policy.rungs[ceiling_level], window_text
        )
        yield Saying("ceiling", "mute", "At its ceiling", text)
    elif seen.held == top_level:
        yield Saying("", "", "", Markup("Nothing lies above this stage."))
    elif policy.gate(seen.held + 1, cell) is None:
        text = say("The policy has no gate to {} here.", policy.rungs[seen.held + 1])
        yield Saying("", "", "", text)


def no_data(seen: Seen) -> Iterator[Saying]:
    """Tell of silence: nothing counted, or nothing for a day."""
    last_case = seen.row.last_case
    if last_case is None:
        text = (
            "No case from here has been counted yet. No data never widens."
            if seen.scope.versions
            else "No version was ever seen: the first prediction brings one. No data never widens."
        )
        yield Saying("no data", "mute", "No data", Markup("{}").format(text))
    elif seen.at - last_case > SILENT + seen.policy.evidence.grace:
        silence_text = say(
            "No case from here for {}: the last one that was counted is of {}. "
            "No data never widens.",
            took(seen.at - last_case), seen.clock(last_case),
        )  # fmt: skip
        yield Saying("no data", "mute", "No data", silence_text)
