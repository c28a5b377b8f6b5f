"""The figures of a proposal's evidence in words: no share alone, no bound rounded up."""

import re
from dataclasses import dataclass
from typing import Final

from api.console.page.figures import bound_alone, value_of
from api.console.page.text import first_large
from rollout.core.policy.measures import Condition
from rollout.core.policy.policy import Policy
from rollout.reports.text.formatting import number, per_cent
from rollout.services.proposals.proposal_evidence import FIGURES, Beside, Line, Weighed

NOTHING: Final = "–"
MET, NOT_MET = "met", "not met"


@dataclass(frozen=True, slots=True)
class Row:
    """A condition as the table shows it; `now` says what it is today."""

    name: str
    counted: str
    share: str
    bound: str
    line: str
    met: bool
    now: str


@dataclass(frozen=True, slots=True)
class BesideRow:
    """What a gate asks for beside its conditions: what there is, the line, whether it is met."""

    name: str
    have: str
    line: str
    met: bool


def brief(because: tuple[str, ...], *, most: int = 3) -> str:
    """Say frozen readings in a breath, without how they were weighed.

    >>> brief(("agreement at least 95 %: 245 of 248, log E 4.271300 of 2.995732 (risk 0.05)",))
    'agreement at least 95 %: 245 of 248'
    """
    texts = [FIGURES.sub(_counted, reading) for reading in because]
    more_text = [f"{len(texts) - most} more"] if len(texts) > most else []
    return "; ".join([*texts[:most], *more_text])


def _counted(found: re.Match[str]) -> str:
    counts = found["counts"]
    return f": {counts}" if " of " in counts else f": {sum(map(int, counts.split()))} units"


def rows_of(lines: tuple[Line, ...], policy: Policy) -> tuple[Row, ...]:
    """Return the rows of the conditions whose figures can be read; others stand as text."""
    return tuple(
        _row(reading, reading.frozen, policy) for reading in lines if reading.frozen is not None
    )


def plain_lines(lines: tuple[Line, ...]) -> tuple[str, ...]:
    """Return the readings of which nothing but the text is left."""
    return tuple(reading.text for reading in lines if reading.frozen is None)


def _row(line: Line, frozen: Weighed, policy: Policy) -> Row:
    return Row(
        name=name_of(frozen.condition),
        counted=counted_text(frozen, policy),
        share=estimate_text(frozen),
        bound=bound_text(frozen),
        line=line_text(frozen.condition),
        met=frozen.met,
        now=_now(line.now, frozen, policy),
    )


def _now(now: Weighed | None, frozen: Weighed, policy: Policy) -> str:
    if now is None:
        return "not asked for any more"
    if now.counts == frozen.counts:
        return "unchanged"
    bound = bound_text(now)
    side = "at least" if now.condition.at_least else "at most"
    least = "" if bound == NOTHING else f", {side} {bound}"
    return f"{counted_text(now, policy)}{least}: {MET if now.met else NOT_MET}"


def name_of(condition: Condition) -> str:
    """Return what is measured, without its line.

    >>> name_of(Condition("recall", 0.8, at_least=True, label="bear"))
    'Recall of bear'
    """
    label = condition.label or condition.action
    lever_text = f" ({condition.lever})" if condition.lever else ""
    name = condition.measure.replace("_", " ") + (f" of {label}" if label else "") + lever_text
    return first_large(name)


def line_text(condition: Condition) -> str:
    """Return what is asked for: `95 %`, or `at most 0.2` where less is better."""
    return condition.line_text if condition.at_least else f"at most {condition.line_text}"


def counted_text(weighed: Weighed, policy: Policy) -> str:
    """Return the counts in words: of shares agreeing ones, of costs units by what they cost."""
    counts = weighed.counts
    if weighed.condition.measure == "cost":
        levels = zip(policy.cost_levels, counts, strict=True)
        return ", ".join(f"{number(count)} at {level:g}" for level, count in levels if count) or "0"
    if len(counts) == 2:
        return f"{number(counts[0])} of {number(sum(counts))}"
    return f"{number(sum(counts))} with two verdicts"


def estimate_text(weighed: Weighed) -> str:
    """Return the plain share or mean cost."""
    if weighed.estimate is None:
        return NOTHING
    return value_of(weighed.condition.measure, weighed.estimate)


def bound_text(weighed: Weighed) -> str:
    """Return the bound, with as many digits as it takes not to read like a line it isn't."""
    if weighed.bound is None:
        return NOTHING
    condition = weighed.condition
    return bound_alone(
        condition.measure, weighed.bound, condition.line, at_least=condition.at_least
    )


def beside_rows(beside: Beside) -> tuple[BesideRow, ...]:
    """Return what a gate asks for beside evidence, as counted now."""
    minimum, missing, missing_limit = beside.minimum, beside.missing, beside.missing_at_most
    count_text = f"{number(missing)} of {number(beside.closed)}"
    share_text = f", {per_cent(missing / beside.closed)}" if beside.closed else ""
    is_met = missing <= missing_limit * beside.closed
    return (
        _at_least("Units", beside.units, minimum.units),
        _at_least("Days", beside.days, minimum.days),
        _at_least("Reviewers", beside.reviewers, minimum.reviewers),
        BesideRow(
            "Missing verdicts",
            count_text + share_text,
            f"at most {per_cent(missing_limit, 0)}",
            is_met,
        ),
    )


def _at_least(name: str, have: int, need: int) -> BesideRow:
    return BesideRow(name, number(have), f"at least {number(need)}", have >= need)
