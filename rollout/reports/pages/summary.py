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
        widened_count = sum(cell.widened > 0 for cell in facts.stages)
        if not widened_count:
            return f"Nothing is widened: {_all(total)} in shadow"
        return (
            f"{sentence(_all(total))[:-1]} in shadow at the end; {number(widened_count)} had"
            " gone up"
        )
    ladder = reversed(facts.rules.stages)
    parts = [
        f"{counts[stage]} {'in ' * (stage == SHADOW)}{stage}" for stage in ladder if counts[stage]
    ]
    return f"Of {several(total, 'cell')} at the end: {listed(parts)}"


def _all(cells: int) -> str:
    return f"all {number(cells)} cells" if cells > 1 else "the one cell"


def sentences(facts: Facts, view: str | None = None) -> tuple[str, ...]:
    """Say what came out, what went wrong and what it cost; most important first.

    An operator's list leaves out how far versions and people agree case by case, and where they
    do not: the table of cells beneath it says what decides there.
    """
    is_operator = view == "operator"
    return (
        *_unusable(facts),
        *_unlisted(facts),
        *_loops(facts),
        *_suspended(facts),
        *_waiting(facts),
        *(() if is_operator else _agreements(facts)),
        *(() if is_operator else _slices(facts)),
        *_unseen(facts),
        *_held(facts),
        *_narrowings(facts),
        *_price(facts.price),
        *(() if is_operator else _people(facts)),
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
    for item in facts.unlisted:
        answers = listed([f"'{answer}' ({number(count)})" for answer, count in item.answers])
        side = "the model" if item.by == "model" else "people"
        yield (
            f"{several(item.count, 'answer')} by {side} {'is' if item.count == 1 else 'are'} none "
            f"that the policy offers for {item.lever}, most often {answers}; each counts as a "
            "disagreement."
        )


def _loops(facts: Facts) -> Iterator[str]:
    """Say where a loop feeds itself: then no other figure says what is there."""
    for loop in facts.feedback:
        if loop.feeds:
            yield f"{loop.version}, {loop.lever}: {' '.join(loop.says[1:])}"


def _suspended(facts: Facts) -> Iterator[str]:
    """Say which cells a guard or a person holds back now, and until when."""
    holds = {  # of several versions in a cell the acting one, else any, speaks
        cell_name(item.site, item.window): item.decides_next
        for item in sorted(facts.evidence, key=lambda item: item.acting)
        if item.decides_next.startswith(HELD_BACK)
    }
    yield from (f"{cell} is {hold}." for cell, hold in list(holds.items())[:FEW])
    if len(holds) > FEW:
        more = several(len(holds) - FEW, "more cell is", "more cells are")
        yield f"{more} suspended or stopped."


def _waiting(facts: Facts) -> Iterator[str]:
    """Say which proposals wait for people: the only thing here that somebody has to do."""
    pending = [item for item in facts.evidence if WAITS in item.decides_next]
    for item in pending[:FEW]:
        yield f"{cell_name(item.site, item.window)}: {item.version}'s {item.decides_next}."
    if len(pending) > FEW:
        yield f"{several(len(pending) - FEW, 'more proposal')} in the table below."


def _agreements(facts: Facts) -> Iterator[str]:
    combined = [item for item in facts.agreements if item.lever == WHOLE] or list(facts.agreements)
    yield from (_agreement(figures) for figures in combined)


def _agreement(figures: Agreement) -> str:
    version, share = figures.version, figures.agreement
    if share.rate is None:
        return f"{version} cannot be compared with people: no case has one label of theirs."
    text = f"{version} agrees with people on {per_cent(share.rate)} of {number(share.n)} cases"
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
        slices = [item for item in search.found if item.names[0][0] != LABEL][:FEW]
        if slices:
            lever_text = f" on {search.lever}" if len(levers) > 1 else ""
            slice_text = listed([_slice(item) for item in slices])
            yield (
                f"{search.version} differs from people more than elsewhere{lever_text}:"
                f" {slice_text}."
            )


def _slice(s: FoundSlice) -> str:
    cause = f"; {FOLLOWS[s.follows]}" if s.follows else ""
    counts = f"{number(s.differ)} of {number(s.n)}, {per_cent(s.share)}"
    return f"{s.name} ({counts} against {per_cent(s.elsewhere)}{cause})"


def _unseen(facts: Facts) -> Iterator[str]:
    """Say which values came first when the model already did more than read along."""
    new_values = sorted(facts.drifts.unseen, key=lambda item: -item.count)
    for item in new_values[:FEW]:
        first = local(item.at, facts.identity.zones[item.site], facts.identity.first)
        yield (
            f"{item.site} had no case of {item.attribute} “{item.value}” while it was in shadow,"
            f" and {number(item.count)} of {number(item.of)} since, the first on {first}."
        )
    if len(new_values) > FEW:
        yield f"{several(len(new_values) - FEW, 'more value')} never seen in shadow."


def _held(facts: Facts) -> Iterator[str]:
    """Say which cells never left shadow, and why the first few did not."""
    shadow_cells = {(item.site, item.window) for item in facts.stages if not item.widened}
    shadow_evidence = [
        item for item in facts.evidence if (item.site, item.window) in shadow_cells and item.closed
    ]
    worst = sorted(shadow_evidence, key=lambda item: -item.closed)
    described: set[tuple[str, str]] = set()
    for evidence in worst:
        cell = (evidence.site, evidence.window)
        if cell not in described and len(described) < FEW:
            described.add(cell)
            yield f"{cell_name(*cell)} is held in shadow: {evidence.version} {_why(evidence)}."
    rest = len({(item.site, item.window) for item in shadow_evidence} - described)
    if rest:
        yield f"{several(rest, 'more cell is', 'more cells are')} held in shadow."


def _why(evidence: EvidenceFacts) -> str:
    gate = evidence.gate
    unmet = [condition for condition in gate.conditions if not condition.met] if gate else []
    is_early = all(
        condition.estimate is None or condition.estimate >= condition.line
        for condition in unmet
        if condition.at_least
    )
    if not unmet or (is_early and gate and gate.lacks):
        return f"waits ({evidence.decides_next})"
    worst = min(unmet, key=lambda condition: condition.log_e - condition.needed)
    return f"{_stands(worst, evidence.missing)}; asked for is {worst.condition}"


def _stands(condition: ConditionFacts, missing: int) -> str:
    if condition.estimate is None:
        return "has no data"
    if condition.measure in {"cost", "parity"}:
        return f"stands at {condition.estimate:.3g}"
    counts = f"{number(condition.counts[0])} of {number(condition.n)}"
    if condition.measure == "agreement" and missing > HIGH * condition.n:
        counts += f", {number(missing)} of them without a verdict"
    return f"stands at {per_cent(condition.estimate)} ({counts})"


def _narrowings(facts: Facts) -> Iterator[str]:
    if not facts.hindsights:
        if any(cell.widened for cell in facts.stages):
            yield "No quality guard gave alarm."
        return
    described = [item for item in facts.hindsights if item.price.cases][:FEW] or list(
        facts.hindsights[:FEW]
    )
    yield from (_narrowing(hindsight, facts) for hindsight in described)
    rest = [item for item in facts.hindsights if item not in described]
    if rest:
        cell_names = list(dict.fromkeys(cell_name(item.site, item.window) for item in rest))
        at = f" at {listed(cell_names)}" if len(cell_names) <= FEW else ""
        yield f"{several(len(rest), 'more narrowing')}{at}."


def _narrowing(h: Hindsight, facts: Facts) -> str:
    cell = cell_name(h.site, h.window)
    local_time = local(h.narrowed_at, facts.identity.zones[h.site], facts.identity.first)
    text = (
        f"{cell} was taken back from {h.came_from} to {h.to} on {local_time}, "
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
    standouts = [item for item in reviewers if item.stands_out]
    more = f", {several(len(standouts) - 1, 'other')} less so" if len(standouts) > 1 else ""
    for reviewer in standouts[:1]:
        comparison = reviewer.stands_out[0]
        own_share, others = (
            _against(reviewer, comparison),
            [item for item in reviewers if item is not reviewer],
        )
        shares = [_against(other, comparison) for other in others]
        rate = sum(share.count for share in shares) / max(sum(share.n for share in shares), 1)
        yield (
            f"{reviewer.name} stands out{' most' if more else ''} among "
            f"{several(len(reviewers), 'reviewer')}{more}: agrees with "
            f"{AGAINST[comparison]} on {per_cent(own_share.rate)} of {number(own_share.n)} cases, "
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
