"""The report in a few sentences that need no page of docs."""

from collections import Counter
from collections.abc import Iterator

from rollout.core.calendar.sites import SHADOW
from rollout.core.policy.measures import WHOLE
from rollout.reports.figures.agreement import Agreement
from rollout.reports.figures.audit_cost import Hindsight
from rollout.reports.figures.evidence_facts import ConditionFacts, EvidenceFacts
from rollout.reports.figures.facts import Facts
from rollout.reports.figures.funnel import NOT_SAID
from rollout.reports.figures.model_cost import Price
from rollout.reports.figures.reviewer_agreement import Reviewer
from rollout.reports.figures.slices import FOLLOWS, FoundSlice
from rollout.reports.inputs.slice_units import LABEL
from rollout.reports.statistics.intervals import Share, at_most
from rollout.reports.text.formatting import (
    between,
    cell_name,
    listed,
    local,
    number,
    of,
    per_cent,
    sentence,
    several,
    span_text,
)

FEW = 3  # cells and narrowings that are told one by one
HELD_BACK = ("suspended until", "stopped by a person")  # as next_step begins
WAITS = "waits for people"  # what next_step says of a proposal that lacks approvals
HIGH = 0.05  # share of missing verdicts from which on they are told of


def headline(facts: Facts) -> str:
    """Say in one line how the cells ended."""
    counts = Counter(cell.stage for cell in facts.stages)
    total = len(facts.stages)
    if set(counts) == {SHADOW}:
        moved = sum(cell.widened > 0 for cell in facts.stages)
        if not moved:
            return f"Nothing is widened: {_all(total)} in shadow"
        return f"{sentence(_all(total))[:-1]} in shadow at the end; {number(moved)} had gone up"
    ladder = reversed(facts.rules.stages)
    parts = [f"{counts[s]} {'in ' * (s == SHADOW)}{s}" for s in ladder if counts[s]]
    return f"Of {several(total, 'cell')} at the end: {listed(parts)}"


def _all(cells: int) -> str:
    return f"all {number(cells)} cells" if cells > 1 else "the one cell"


def sentences(facts: Facts, view: str | None = None) -> tuple[str, ...]:
    """Say what came out, what went wrong and what it cost; most important first.

    An operator's list leaves out how far versions and people agree case by case, and where they
    do not: the table of cells beneath it says what decides there.
    """
    brief = view == "operator"
    return (
        *_unusable(facts),
        *_unlisted(facts),
        *_loops(facts),
        *_suspended(facts),
        *_waiting(facts),
        *(() if brief else _agreements(facts)),
        *(() if brief else _slices(facts)),
        *_unseen(facts),
        *_held(facts),
        *_narrowings(facts),
        *_price(facts.price),
        *(() if brief else _people(facts)),
    )


def _unusable(facts: Facts) -> Iterator[str]:
    """Say that verdicts are no evidence because nobody said how they were given."""
    for funnel in facts.funnels:
        lost = funnel.steps[-1].lost.get(NOT_SAID, 0)
        units = lost + funnel.steps[-1].left
        if lost > units / 2:
            yield (
                f"{number(lost)} of {number(units)} verdicts beside {funnel.version} are no "
                "evidence: nothing says that people had not seen the model's answer. If they had "
                "not, write `outside: blind` under `evidence:` in the policy, or give the "
                "decisions a column `exposure`."
            )


def _unlisted(facts: Facts) -> Iterator[str]:
    """Say which answers the policy does not know: most often a label that is spelt otherwise."""
    for found in facts.unlisted:
        answers = listed([f"'{answer}' ({number(count)})" for answer, count in found.answers])
        who = "the model" if found.by == "model" else "people"
        yield (
            f"{several(found.count, 'answer')} by {who} {'is' if found.count == 1 else 'are'} none "
            f"that the policy offers for {found.lever}, most often {answers}; each counts as a "
            "disagreement."
        )


def _loops(facts: Facts) -> Iterator[str]:
    """Say where a loop feeds itself: then no other figure says what is there."""
    for fed in facts.feedback:
        if fed.feeds:
            yield f"{fed.version}, {fed.lever}: {' '.join(fed.says[1:])}"


def _suspended(facts: Facts) -> Iterator[str]:
    """Say which cells a guard or a person holds back now, and until when."""
    found = {  # of several versions in a cell the acting one, else any, speaks
        cell_name(e.site, e.window): e.decides_next
        for e in sorted(facts.evidence, key=lambda e: e.acting)
        if e.decides_next.startswith(HELD_BACK)
    }
    yield from (f"{cell} is {says}." for cell, says in list(found.items())[:FEW])
    if len(found) > FEW:
        more = several(len(found) - FEW, "more cell is", "more cells are")
        yield f"{more} suspended or stopped."


def _waiting(facts: Facts) -> Iterator[str]:
    """Say which proposals wait for people: the only thing here that somebody has to do."""
    waiting = [e for e in facts.evidence if WAITS in e.decides_next]
    for e in waiting[:FEW]:
        yield f"{cell_name(e.site, e.window)}: {e.version}'s {e.decides_next}."
    if len(waiting) > FEW:
        yield f"{several(len(waiting) - FEW, 'more proposal')} in the table below."


def _agreements(facts: Facts) -> Iterator[str]:
    whole = [a for a in facts.agreements if a.lever == WHOLE] or list(facts.agreements)
    yield from (_agreement(figures) for figures in whole)


def _agreement(figures: Agreement) -> str:
    who, share = figures.version, figures.agreement
    if share.rate is None:
        return f"{who} cannot be compared with people: no case has one label of theirs."
    text = f"{who} agrees with people on {per_cent(share.rate)} of {number(share.n)} cases"
    return f"{text} ({between(share)}){_not_compared(figures)}."


def _not_compared(figures: Agreement) -> str:
    """Say how many cases have no one label of people, where they are more than a few."""
    if figures.unjudged <= HIGH * figures.predicted:
        return ""
    return f"; on {number(figures.unjudged)} more, people gave no label or several"


def _slices(facts: Facts) -> Iterator[str]:
    """Say where a version differs from people more than elsewhere, and whose doing it is."""
    levers = {search.lever for search in facts.slice_searches}
    for search in facts.slice_searches:
        found = [s for s in search.found if s.names[0][0] != LABEL][:FEW]
        if found:
            of_what = f" on {search.lever}" if len(levers) > 1 else ""
            where = listed([_slice(s) for s in found])
            yield f"{search.version} differs from people more than elsewhere{of_what}: {where}."


def _slice(s: FoundSlice) -> str:
    whose = f"; {FOLLOWS[s.follows]}" if s.follows else ""
    often = f"{number(s.differ)} of {number(s.n)}, {per_cent(s.share)}"
    return f"{s.name} ({often} against {per_cent(s.elsewhere)}{whose})"


def _unseen(facts: Facts) -> Iterator[str]:
    """Say which values came first when the model already did more than read along."""
    found = sorted(facts.drifts.unseen, key=lambda u: -u.count)
    for u in found[:FEW]:
        first = local(u.at, facts.identity.zones[u.site], facts.identity.first)
        yield (
            f"{u.site} had no case of {u.attribute} “{u.value}” while it was in shadow, and "
            f"{number(u.count)} of {number(u.of)} since, the first on {first}."
        )
    if len(found) > FEW:
        yield f"{several(len(found) - FEW, 'more value')} never seen in shadow."


def _held(facts: Facts) -> Iterator[str]:
    """Say which cells never left shadow, and why the first few did not."""
    never = {(c.site, c.window) for c in facts.stages if not c.widened}
    held = [e for e in facts.evidence if (e.site, e.window) in never and e.closed]
    worst = sorted(held, key=lambda e: -e.closed)
    seen: set[tuple[str, str]] = set()
    for evidence in worst:
        cell = (evidence.site, evidence.window)
        if cell not in seen and len(seen) < FEW:
            seen.add(cell)
            yield f"{cell_name(*cell)} is held in shadow: {evidence.version} {_why(evidence)}."
    rest = len({(e.site, e.window) for e in held} - seen)
    if rest:
        yield f"{several(rest, 'more cell is', 'more cells are')} held in shadow."


def _why(evidence: EvidenceFacts) -> str:
    gate = evidence.gate
    unmet = [c for c in gate.conditions if not c.met] if gate else []
    early = all(c.estimate is None or c.estimate >= c.line for c in unmet if c.at_least)
    if not unmet or (early and gate and gate.lacks):
        return f"waits ({evidence.decides_next})"
    worst = min(unmet, key=lambda c: c.log_e - c.needed)
    return f"{_stands(worst, evidence.missing)}; asked for is {worst.condition}"


def _stands(condition: ConditionFacts, missing: int) -> str:
    if condition.estimate is None:
        return "has no data"
    if condition.measure in {"cost", "parity"}:
        return f"stands at {condition.estimate:.3g}"
    seen = f"{number(condition.counts[0])} of {number(condition.n)}"
    if condition.measure == "agreement" and missing > HIGH * condition.n:
        seen += f", {number(missing)} of them without a verdict"
    return f"stands at {per_cent(condition.estimate)} ({seen})"


def _narrowings(facts: Facts) -> Iterator[str]:
    if not facts.hindsights:
        if any(cell.widened for cell in facts.stages):
            yield "No quality guard gave alarm."
        return
    shown = [h for h in facts.hindsights if h.price.cases][:FEW] or list(facts.hindsights[:FEW])
    yield from (_narrowing(hindsight, facts) for hindsight in shown)
    rest = [h for h in facts.hindsights if h not in shown]
    if rest:
        where = list(dict.fromkeys(cell_name(h.site, h.window) for h in rest))
        at = f" at {listed(where)}" if len(where) <= FEW else ""
        yield f"{several(len(rest), 'more narrowing')}{at}."


def _narrowing(h: Hindsight, facts: Facts) -> str:
    cell = cell_name(h.site, h.window)
    when = local(h.narrowed_at, facts.identity.zones[h.site], facts.identity.first)
    text = (
        f"{cell} was taken back from {h.came_from} to {h.to} on {when}, "
        f"{span_text(h.narrowed_at - h.began_at)} after {h.version} fell below its line there"
    )
    if h.price.known:
        text += (
            f"; {_wrong(h.price)} of {several(h.price.known, 'case')} decided meanwhile went wrong"
        )
    return text + _sooner(h) + "."


def _sooner(h: Hindsight) -> str:
    if h.seen_at is None or h.price_if_seen is None or h.seen_at >= h.narrowed_at:
        return ""
    delay = span_text(h.seen_at - h.began_at)
    if not h.price.known:
        return f"; with every verdict in sight it would have taken {delay}"
    wrong = several(h.price_if_seen.wrong_action.count, "wrong case")
    return f"; with every verdict in sight it would have taken {delay} and {wrong}"


def _wrong(price: Price) -> str:
    return number(price.wrong_action.count)


def _price(price: Price) -> Iterator[str]:
    if not price.cases:
        return
    text = f"The model decided {several(price.cases, 'case')} by itself"
    if price.known:
        text += f": {of(price.wrong_action)} went wrong ({_how_often(price.wrong_action)})"
    if price.people_wrong_action is not None:
        text += (
            f"; people had {number(price.people_wrong_action)} of "
            f"{number(price.people_known)} of these cases wrong"
        )
    yield text + "."


def _how_often(wrong: Share) -> str:
    """Say a share of wrong cases; where none was seen, how many there may be at most."""
    if wrong.count:
        return per_cent(wrong.rate, 2)
    return f"so at most {per_cent(at_most(0, wrong.n))}, one-sided 95 %"


def _people(facts: Facts) -> Iterator[str]:
    """Say who stands out most, against what, beside the others."""
    reviewers = facts.people.reviewers
    out = [r for r in reviewers if r.stands_out]
    more = f", {several(len(out) - 1, 'other')} less so" if len(out) > 1 else ""
    for reviewer in out[:1]:
        against = reviewer.stands_out[0]
        own, others = _against(reviewer, against), [r for r in reviewers if r is not reviewer]
        shares = [_against(other, against) for other in others]
        rate = sum(s.count for s in shares) / max(sum(s.n for s in shares), 1)
        yield (
            f"{reviewer.name} stands out{' most' if more else ''} among "
            f"{several(len(reviewers), 'reviewer')}{more}: agrees with "
            f"{AGAINST[against]} on {per_cent(own.rate)} of {number(own.n)} cases, "
            f"the others on {per_cent(rate)}."
        )


def _against(reviewer: Reviewer, what: str) -> Share:
    shares = {
        "outcome": reviewer.with_outcome,
        "others": reviewer.with_others,
        "model": reviewer.with_model,
    }
    return shares[what]


AGAINST = {"outcome": "the outcome", "others": "other people", "model": "the model"}
