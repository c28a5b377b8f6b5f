"""The report in a few sentences: its results, what the model brought, and what is left to people.

Cases are left to people by confidence floors and by unfamiliar values.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, Protocol

from rollout.engine.words.evidence_text import describe_late_senders, describe_spell
from rollout.engine.words.formatting import (
    choose_words,
    describe_duration,
    format_cell_name,
    format_count,
    format_day,
    format_decimal,
    format_interval,
    format_local_time,
    format_percent,
    format_quantity,
    format_ratio,
    format_signed,
    format_zoned_time,
    is_amount,
    join_words,
)
from rollout.features.reports.figures.agreement import AgreementFigures
from rollout.features.reports.figures.evidence_facts import (
    EvidenceFacts,
    FloorEvidence,
    describe_uncounted,
)
from rollout.features.reports.figures.facts import ReportFacts, list_other_narrowings
from rollout.features.reports.figures.funnel import (
    EXPOSURE_UNKNOWN,
    LATE,
    Funnel,
    UnfamiliarCases,
    UnknownLabels,
)
from rollout.features.reports.figures.methods import (
    FLOORS,
    WHOLE_CELL,
    GainFacts,
    MethodOutcome,
    ModelCost,
)
from rollout.features.reports.figures.oversight import Hindsight, VisibleAgreement
from rollout.features.reports.figures.report_identity import ReportIdentity
from rollout.features.reports.figures.report_version import FINAL, ReportVersion
from rollout.features.reports.figures.reviewer_agreement import (
    list_visible_standouts,
)
from rollout.features.reports.figures.slices import CAUSE_TEXTS, LABEL_KIND, DivergentSlice
from rollout.features.reports.inputs.cell_facts import ConditionFacts
from rollout.kernel.calendar.instants import SHADOW
from rollout.kernel.measures import MEASURES
from rollout.kernel.statistics.intervals import Share, compute_upper_bound
from rollout.kernel.units import (
    AFTER_DECISION,
    LATE_CASE,
    PROPOSES,
    SILENT_REASONS,
    WHOLE_UNIT,
    group_pairs,
)

MAX_ROWS: Final = 3  # one sentence each


def describe_unfamiliar(rows: Sequence[UnfamiliarCases]) -> Iterator[str]:
    """Yield a sentence for each set of unfamiliar values, most cases first."""
    for row in rows[:MAX_ROWS]:
        yield (
            f"{row.cell_name}: {format_quantity(row.cases, 'case')} with"
            f" {row.values} ({format_percent(row.share)} of its cases under {row.version}) went to"
            f" humans, because {row.version} was not familiar with them{_describe_effect(row)}"
        )
    others = rows[MAX_ROWS:]
    if others:
        cases = format_quantity(sum(row.cases for row in others), "more case")
        yield f"{cases} with other unfamiliar values went to humans; report.json lists them."


def _describe_effect(row: UnfamiliarCases) -> str:
    """Describe how the version did on these cases, and what it would have done."""
    if not row.agreement.n:
        return "."
    words = choose_words(row.by_outcome, row.agreement.n)
    text = f"; it decided {words.right} in {format_ratio(row.agreement)}"
    if not row.model_cases:
        return f"{text}."
    return (
        f"{text}. At its stage it would have decided {format_count(row.model_cases)} of them until"
        f" narrowed, {format_count(row.prevented)} {words.wrong} in the action."
    )


MIN_UNITS: Final = 30  # fewer say little about a share


def describe_held_floors(facts: ReportFacts) -> Iterator[str]:
    """Yield a sentence for each version in a cell that opens at no confidence floor."""
    shadow_cells = facts.shadow_cells
    rows = [
        item
        for item in facts.evidence
        if item.cell in shadow_cells
        and item.decided_units
        and item.floors
        and all(floor.state == "not met" for floor in item.floors)
    ]
    rows.sort(key=lambda item: -item.decided_units)
    yield from (_describe_held_floors(item) for item in rows[:MAX_ROWS])
    if len(rows) > MAX_ROWS:
        yield f"{format_quantity(len(rows) - MAX_ROWS, 'more version')} met no confidence floor."


def _describe_held_floors(item: EvidenceFacts) -> str:
    threshold = (
        next(
            (
                row.threshold
                for row in item.gate.conditions
                if MEASURES[row.measure].covers_all_labels
            ),
            None,
        )
        if item.gate
        else None
    )
    floors = [floor for floor in item.floors if floor.reached.n]
    needed = f" The gate needs agreement of {format_percent(threshold, 0)}." if threshold else ""
    shares = [
        f"{format_percent(_compute_gate_share(floor))} of"
        f" {format_count(floor.reached.n + floor.undecided_units)} ({floor.cases})"
        for floor in floors
    ]
    text = (
        f"{item.cell_name}: {item.version} met no confidence floor."
        f"{needed} Of units, those without a decision counted as disagreements, agree"
        f" {join_words(shares)}."
    )
    return text + _describe_worth(floors, threshold)


def _compute_gate_share(floor: FloorEvidence) -> float:
    return floor.reached.count / (floor.reached.n + floor.undecided_units)


def _describe_worth(floors: Sequence[FloorEvidence], threshold: float | None) -> str:
    """Say that confidence tells little: the surest cases miss the threshold, or a band is worse."""
    large = [floor for floor in floors if floor.reached.n >= MIN_UNITS]
    is_short = bool(large) and threshold is not None and _compute_gate_share(large[-1]) < threshold
    falls = [
        f"from {format_percent(lower.band.rate)} to {format_percent(higher.band.rate)} at"
        f" {higher.floor}"
        for lower, higher in pairwise(floors)
        if min(lower.band.n, higher.band.n) >= MIN_UNITS
        and (lower.band.rate or 0.0) > (higher.band.rate or 0.0)
    ]
    if not is_short and not falls:
        return ""
    text = " The version's confidence says little there"
    parts = [f"even {large[-1].cases} agree too rarely"] if is_short else []
    parts += [f"from band to band agreement falls {join_words(falls)}"] if falls else []
    return f"{text}: {'; '.join(parts)}."


def describe_methods(methods: Sequence[MethodOutcome]) -> Iterator[str]:
    """Yield sentences on the model's decisions and errors under other ways to open cells."""
    for rows in group_pairs((row.kind, row) for row in methods).values():
        counts = [f"{name_method(row)} {_count_decisions(row)}" for row in rows]
        yield f"With {'; with '.join(counts)}."


def name_method(method: MethodOutcome) -> str:
    """Return the name of a way to open cells."""
    if method.kind == FLOORS:
        return "a gate for each confidence floor"
    if method.kind == WHOLE_CELL:
        return "one gate for the whole cell"
    return f"a plain threshold of confidence {method.floor}, without evidence"


def _count_decisions(method: MethodOutcome) -> str:
    wrong = method.model_cost.wrong_action
    wrong_text = f", {format_count(wrong.count)} {method.model_cost.words.wrong}" if wrong.n else ""
    return (
        f"the model decides {format_quantity(method.model_cost.cases, 'case')}{wrong_text};"
        f" {format_quantity(method.human_decisions, 'human decision')}"
    )


def describe_gain(gain: GainFacts) -> str:
    """Return what a version brought in a cell, with its interval and both arms."""
    cell = gain.cell_name
    verb = "its proposals brought" if gain.arm == PROPOSES else "the model brought"
    if gain.gain is None:
        compared_units = gain.model_units + gain.human_units
        total = format_quantity(compared_units + gain.missing, "closed unit")
        return (
            f"{cell}, {gain.version}: no {gain.outcome} to compare yet."
            f" {format_count(compared_units)} of {total} have a value that came in time."
            f"{_describe_rest(gain)}"
        )
    amount = format_amount(gain.gain, gain.unit)
    brought = (
        f"{amount} of {gain.outcome} a unit"
        if gain.more_is_better
        else f"a gain of {amount} a unit in {gain.outcome}"
    )
    return (
        f"{cell}, {gain.version}: {verb} {brought} ({format_gain_interval(gain)} at every look,"
        f" 95 %): {describe_arms(gain)}"
    )


class MeasuredGain(Protocol):
    """What a version brought, as far as a summary reads it."""

    @property
    def outcome(self) -> str:
        """Return the name of the outcome."""

    @property
    def gain(self) -> float | None:
        """Return the estimate, in the unit of the outcome."""

    @property
    def lower(self) -> float:
        """Return the lower end of its interval."""

    @property
    def upper(self) -> float:
        """Return the upper end of its interval."""


def summarize_gains(gains: Iterable[MeasuredGain]) -> Iterator[str]:
    """Yield for each outcome in how many comparisons the model surely brought more, or less."""
    for outcome, all_rows in group_pairs((gain.outcome, gain) for gain in gains).items():
        rows = [row for row in all_rows if row.gain is not None]
        better, worse = sum(row.lower > 0 for row in rows), sum(row.upper < 0 for row in rows)
        total = format_quantity(len(rows), "comparison")
        yield (
            f"{outcome}: better with the model in {format_count(better)} of {total}, worse in"
            f" {format_count(worse)}"
            if rows
            else f"no {outcome} to compare yet"
        )


def describe_conflicts(
    gains: Iterable[GainFacts], agreements: Iterable[VisibleAgreement]
) -> Iterator[str]:
    """Yield a sentence for each cell where agreement misleads about the gain.

    There the model mostly agrees with humans and loses, or mostly differs and gains. The gain's
    whole interval lies on one side of 0. Losses come first.
    """
    shares = {(item.cell, item.version): item.all for item in agreements}
    for gain in sorted(gains, key=lambda gain: gain.upper >= 0):
        share = shares.get((gain.cell, gain.version))
        if share is None or share.rate is None:
            continue
        mostly_agrees = share.rate > 0.5
        if gain.upper < 0 if mostly_agrees else gain.lower > 0:
            yield (
                f"{gain.cell_name}, {gain.version}: agreement and"
                f" {gain.outcome} point apart: it agrees with humans on"
                f" {format_percent(share.rate)} of {format_quantity(share.n, 'unit')}, and its"
                f" arm has the {'worse' if mostly_agrees else 'better'} {gain.outcome}."
            )


def describe_arms(gain: GainFacts) -> str:
    """Return both arms' means, and why their difference isn't the gain where it isn't."""
    text = (
        f"{format_decimal(gain.model_mean, 2)} in the model's arm"
        f" ({format_quantity(gain.model_units, 'unit')}),"
        f" {format_decimal(gain.human_mean, 2)} in the humans'"
        f" ({format_quantity(gain.human_units, 'unit')}), {_describe_origin(gain)}"
        f"{'' if gain.more_is_better else '; less is better'}."
        f"{_describe_rest(gain)}"
    )
    if gain.has_one_share:
        return text
    return f"{text} The model's share changed: the gain compares units of the same share."


def _describe_origin(gain: GainFacts) -> str:
    """Return who assigned the arms."""
    if gain.has_recorded_arms:
        return "sampled at random"
    return "sampled by this replay; no column `sampled_arm` says which arm acted"


def _describe_rest(gain: GainFacts) -> str:
    """Return how many units are in no arm, or of no source, and why; "" if none is."""
    units = format_quantity(gain.without_arm, "more unit")
    parts = [f" {units} in no arm: more than chance decided."] if gain.without_arm else []
    parts += [
        f" The {gain.outcome} of {format_quantity(count, 'unit')} doesn't count: {reason}."
        for reason, count in gain.missing_reasons.items()
    ]
    return "".join(parts)


def format_amount(value: float, unit: str) -> str:
    """Format an amount with its sign and unit."""
    return f"{format_signed(value, 2)} {unit}".rstrip()


def format_gain_interval(gain: GainFacts) -> str:
    """Format the interval of a gain."""
    return f"{format_signed(gain.lower, 2)} to {format_signed(gain.upper, 2)}"


MAX_DAYS_UNSAID = 30  # from the last case to the instant of the headline
MAX_NAMED = 3  # cells and narrowings listed one by one
HIGH_MISSING_SHARE = 0.05  # share of missing decisions that is worth reporting
REMEDIES = {  # what to do if most decisions are not evidence for a reason
    EXPOSURE_UNKNOWN: "If the reviewers had not seen the model's answer, write `outside: blind`"
    " under `evidence:` in the policy, or give the decisions a column `exposure`.",
    LATE: "If late decisions are usual, write a longer `grace` under `evidence:` in the policy.",
    SILENT_REASONS[LATE_CASE]: "If cases are usually received so late, write a longer `grace` under"
    " `evidence:` in the policy.",
}


def format_headline(facts: ReportFacts) -> str:
    """Describe in one line how the cells are at the last instant of the report."""
    identity = facts.identity
    days = (identity.last - (identity.last_case or identity.last)).days
    at = format_zoned_time(identity.last, identity.timezone)
    at += f", {format_count(days)} days after the last case" * (days > MAX_DAYS_UNSAID)
    counts, total = Counter(cell.stage for cell in facts.stages), len(facts.stages)
    if set(counts) == {SHADOW}:
        all_cells = f"all {format_count(total)} cells" if total > 1 else "the one cell"
        widened_count = sum(cell.was_above_shadow for cell in facts.stages)
        if not widened_count:
            return f"Nothing was widened until {at}: {all_cells} stayed in shadow"
        return (
            f"In shadow on {at}: {all_cells}; {format_quantity(widened_count, 'was', 'were')}"
            " widened before"
        )
    parts = [
        f"{counts[stage]} {'in ' * (stage == SHADOW)}{stage}"
        for stage in reversed(facts.policy.stages)
        if counts[stage]
    ]
    return f"Of {format_quantity(total, 'cell')} on {at}: {join_words(parts)}"


def describe_results(facts: ReportFacts, view: str | None = None) -> tuple[str, ...]:
    """Return the results in sentences, most important first.

    The operator's list excludes agreement over records, slices and reviewers.
    """
    is_operator = view == "operator"
    return (
        *(describe_gain(gain) for gain in facts.gains),
        *_describe_unusable(facts),
        *(describe_spell(spell, facts.identity.timezone) for spell in facts.sources.spells),
        *_describe_unknown_labels(facts),
        *_describe_loops(facts),
        *_describe_suspended(facts),
        *_describe_waiting(facts),
        *(() if is_operator else describe_conflicts(facts.gains, facts.visible_agreements)),
        *(() if is_operator else _describe_agreements(facts)),
        *(() if is_operator else _describe_slices(facts)),
        *_describe_new_values(facts),
        *_describe_shadow_cells(facts),
        *describe_held_floors(facts),
        *_describe_narrowings(facts),
        *describe_unfamiliar(facts.unfamiliar_cases),
        *_describe_model_cost(facts.model_cost),
        *(() if is_operator else describe_methods(facts.methods)),
        *(() if is_operator else _describe_reviewers(facts)),
    )


def format_span(identity: ReportIdentity) -> str:
    """Format the days of the cases, of the ledger's events without a usable time."""
    first, last = identity.first_case or identity.first, identity.last_case or identity.last
    return f"{format_day(first, identity.timezone)} to {format_day(last, identity.timezone)}"


def describe_report(facts: ReportFacts) -> list[str]:
    """Return what the report is about and whether it may change: the lines before its results."""
    identity = facts.identity
    return [
        f"{identity.rollout}, {format_span(identity)}",
        f"{format_headline(facts)}.",
        *(["This is a replay: every approval is simulated."] if identity.simulated else []),
        *([facts.sources.backtest_text] if facts.sources.backtest_text else []),
        *([facts.sources.sample_text] if facts.sources.samples else []),
        *([facts.sources.choice_text] if facts.sources.choice_text else []),
        *([facts.sources.vouched_text] if facts.sources.vouched_text else []),
        *([facts.sources.label_text] if facts.sources.label_text else []),
        *([_describe_version(facts.report_version)] if facts.report_version.live else []),
    ]


def _describe_version(version: ReportVersion) -> str:
    """Describe whether the report can still change, and until when."""
    if version.state == FINAL:
        return f"Version {version.version}, FINAL: all cases of the span are closed."
    due = "" if version.due is None else f" It can become final on {version.due.isoformat()}."
    open_text = format_quantity(version.uncounted_units, "unit is", "units are")
    return f"Version {version.version}, PROVISIONAL: {open_text} still open.{due}"


def _describe_unusable(facts: ReportFacts) -> Iterator[str]:
    """Describe why most units of a version have no decision that counts, and what to do."""
    for funnel in facts.funnels:
        most, count = funnel.main_loss
        if count > funnel.evidence_units / 2:
            remedy = f" {REMEDIES[most]}" if most in REMEDIES else ""
            if most == SILENT_REASONS[AFTER_DECISION] and facts.sources.late is not None:
                remedy = f" {describe_late_senders(facts.sources.late)}"
            yield (
                f"{funnel.version}: {format_count(funnel.steps[-1].remaining)} of"
                f" {format_quantity(funnel.evidence_units, 'unit')} have a decision that counts as"
                f" evidence; {describe_uncounted(funnel.steps[-1].lost)}.{remedy}"
            )


def _describe_unknown_labels(facts: ReportFacts) -> Iterator[str]:
    """Describe answers outside their lever, most often misspelt labels."""
    for item in facts.unknown_labels:
        answers = join_words(
            [f"'{answer}' ({format_count(count)})" for answer, count in item.answers]
        )
        source = "of the model" if item.side == "model" else "of humans"
        yield (
            f"{format_quantity(item.count, 'answer')} {source}"
            f" {'is' if item.count == 1 else 'are'} outside the policy's labels or range for"
            f" {item.lever}, most often {answers}; each counts as a disagreement."
            f"{describe_set_remedy(item)}"
        )


def describe_set_remedy(item: UnknownLabels) -> str:
    """Return how to write sets in a file; "" if no unknown answer is a set joined otherwise."""
    if not item.other_separators:
        return ""
    return (
        f" {format_count(item.other_separators)} of them"
        f" {'is a set' if item.other_separators == 1 else 'are sets'} with another separator:"
        " join labels by `;`, as in `a;b`, and write an empty set as `[]`."
    )


def _describe_loops(facts: ReportFacts) -> Iterator[str]:
    """Describe feedback loops; they bias all other figures."""
    for loop in facts.feedback_loops:
        if loop.is_shown:
            yield f"{loop.version}, {loop.lever}: {' '.join(loop.summary[1:])}"


def _describe_suspended(facts: ReportFacts) -> Iterator[str]:
    """Describe suspended and stopped cells."""
    holds = {  # the acting version of a cell wins, because it is last
        item.cell_name: item.next_step
        for item in sorted(facts.evidence, key=lambda item: item.acting)
        if item.withheld
    }
    yield from (f"{cell} is {hold}." for cell, hold in list(holds.items())[:MAX_NAMED])
    if len(holds) > MAX_NAMED:
        more = format_quantity(len(holds) - MAX_NAMED, "more cell is", "more cells are")
        yield f"{more} suspended or stopped."


def _describe_waiting(facts: ReportFacts) -> Iterator[str]:
    """Describe proposals that need approvals."""
    pending = [item for item in facts.evidence if item.proposal]
    for item in pending[:MAX_NAMED]:
        yield f"{item.cell_name}: {item.version}: {item.next_step}."
    if len(pending) > MAX_NAMED:
        yield f"{format_quantity(len(pending) - MAX_NAMED, 'more proposal')} in the table below."


def select_agreements(facts: ReportFacts) -> Sequence[AgreementFigures]:
    """Return each version's agreement over all levers, else over its only lever."""
    return [item for item in facts.agreements if item.lever == WHOLE_UNIT] or facts.agreements


def _describe_agreements(facts: ReportFacts) -> Iterator[str]:
    funnels = {funnel.version: funnel for funnel in facts.funnels}
    for figures in select_agreements(facts):
        yield _describe_agreement(figures) + _explain_denominator(
            figures, funnels.get(figures.version)
        )


def _describe_agreement(figures: AgreementFigures) -> str:
    version, share = figures.version, figures.agreement
    if share.rate is None:
        return f"{version} can't be compared with humans: no case has one human answer."
    text = (
        f"{version} agrees with humans on {format_percent(share.rate)} of {format_count(share.n)}"
        " cases"
    )
    interval = "95 % interval" if share.low is not None else "no interval:"
    return f"{text} ({interval} {format_interval(share)})."


def _explain_denominator(figures: AgreementFigures, funnel: Funnel | None) -> str:
    """Explain why this share counts other cases than gates do; empty if it doesn't."""
    if funnel is None or figures.agreement.n in {0, funnel.agreement.n}:
        return ""
    text = (
        " This share counts every case with one human answer; gates count units with a decision"
        f" that is evidence ({format_count(funnel.agreement.n)})."
    )
    if figures.unjudged > HIGH_MISSING_SHARE * figures.predicted:
        text += (
            f" {format_quantity(figures.unjudged, 'more case has', 'more cases have')} no human"
            " answer, or several that differ."
        )
    return text


def _describe_slices(facts: ReportFacts) -> Iterator[str]:
    """Describe slices in which a version differs from humans, and their cause."""
    levers = {search.lever for search in facts.slice_searches}
    for search in facts.slice_searches:
        slices = [item for item in search.slices if item.names[0][0] != LABEL_KIND][:MAX_NAMED]
        if slices:
            lever_text = f" on {search.lever}" if len(levers) > 1 else ""
            slice_text = join_words([_describe_slice(item) for item in slices])
            yield (
                f"{search.version} differs from humans more often than elsewhere{lever_text}:"
                f" {slice_text}."
            )


def _describe_slice(item: DivergentSlice) -> str:
    cause = f"; {CAUSE_TEXTS[item.wrong_side]}" if item.wrong_side else ""
    counts = f"{format_count(item.differ)} of {format_count(item.n)}, {format_percent(item.share)}"
    return f"{item.name} ({counts} against {format_percent(item.elsewhere)}{cause})"


def _describe_new_values(facts: ReportFacts) -> Iterator[str]:
    """Describe attribute values that first occurred above shadow."""
    new_values = sorted(facts.drift.new_values, key=lambda item: -item.count)
    for item in new_values[:MAX_NAMED]:
        first = format_local_time(
            item.first_seen_at, facts.identity.zones[item.site], facts.identity.first
        )
        yield (
            f"{item.site} had no case with {item.attribute} “{item.value}” in shadow; since then"
            f" {format_count(item.count)} of {format_count(item.cases_since)} cases have it, the"
            f" first on {first}."
        )
    if len(new_values) > MAX_NAMED:
        more = format_quantity(len(new_values) - MAX_NAMED, "more value")
        yield f"{more} did not occur in shadow."


def _describe_shadow_cells(facts: ReportFacts) -> Iterator[str]:
    """Describe cells that never left shadow, with reasons for the first few."""
    shadow_cells = facts.shadow_cells
    cells = group_pairs(
        (item.cell, item)
        for item in sorted(facts.evidence, key=lambda item: -item.decided_units)
        if item.cell in shadow_cells and item.closed_units
    )
    decided = [rows for rows in cells.values() if rows[0].decided_units]
    for most, *others in decided[:MAX_NAMED]:
        also = f"; also held: {join_words([item.version for item in others])}" if others else ""
        reason = _describe_shadow_reason(most)
        yield f"{most.cell_name} stayed in shadow: {most.version} {reason}{also}."
    if len(decided) > MAX_NAMED:
        yield f"{format_quantity(len(decided) - MAX_NAMED, 'more cell')} stayed in shadow."
    without = len(cells) - len(decided)
    if without:
        yield f"{format_quantity(without, 'cell')} stayed in shadow without a counted decision."


def _describe_shadow_reason(evidence: EvidenceFacts) -> str:
    worst = evidence.gate.worst_condition if evidence.gate else None
    if worst is None:
        return f"needs more evidence ({evidence.next_step})"
    return f"{_describe_condition(worst, evidence.undecided_units)}; {worst.describe_need()}"


def _describe_condition(condition: ConditionFacts, missing: int) -> str:
    if condition.estimate is None:
        return f"has no data on {condition.measure}"
    if is_amount(condition.measure):
        return f"has a {condition.measure} of {condition.estimate:.3g}"
    counts = f"{format_count(condition.counts[0])} of {format_count(condition.n)} units"
    if MEASURES[condition.measure].covers_all_labels and missing:
        counts += f"; {format_count(missing)} without a counted decision count as disagreements"
    name = f"{condition.measure}{f' of {condition.label}' if condition.label else ''}"
    return f"has {name} {format_percent(condition.estimate)} ({counts})"


def _describe_narrowings(facts: ReportFacts) -> Iterator[str]:
    others = list_other_narrowings(facts)
    for event in others[:MAX_NAMED]:
        yield f"{format_cell_name(event.site, event.window)}, {event.local}: {event.short_text}."
    if len(others) > MAX_NAMED:
        yield f"{format_quantity(len(others) - MAX_NAMED, 'more narrowing')} in the timeline."
    if not facts.hindsights:
        if not others and any(cell.was_above_shadow for cell in facts.stages):
            yield "No guard narrowed a cell."
        return
    described = [item for item in facts.hindsights if item.cost.cases][:MAX_NAMED] or list(
        facts.hindsights[:MAX_NAMED]
    )
    yield from (_describe_narrowing(hindsight, facts) for hindsight in described)
    rest = [item for item in facts.hindsights if item not in described]
    if rest:
        cell_names = list(dict.fromkeys(item.cell_name for item in rest))
        at = f" at {join_words(cell_names)}" if len(cell_names) <= MAX_NAMED else ""
        yield f"{format_quantity(len(rest), 'more narrowing')}{at}."


def _describe_narrowing(hindsight: Hindsight, facts: ReportFacts) -> str:
    local_time = format_local_time(
        hindsight.narrowed_at, facts.identity.zones[hindsight.site], facts.identity.first
    )
    text = (
        f"{hindsight.cell_name} was narrowed from {hindsight.from_stage} to {hindsight.to_stage} on"
        f" {local_time}, {describe_duration(hindsight.narrowed_at - hindsight.began_at)} after"
        f" {hindsight.version} fell below its threshold there"
    )
    if hindsight.cost.known_cases:
        text += (
            f"; the model decided {format_quantity(hindsight.cost.known_cases, 'case')} in that"
            f" time, {format_count(hindsight.cost.wrong_action.count)} of them"
            f" {hindsight.cost.words.wrong}"
        )
    return text + _describe_earlier_detection(hindsight) + "."


def _describe_earlier_detection(hindsight: Hindsight) -> str:
    if (
        hindsight.seen_at is None
        or hindsight.cost_if_seen is None
        or hindsight.seen_at >= hindsight.narrowed_at
    ):
        return ""
    delay = describe_duration(hindsight.seen_at - hindsight.began_at)
    text = f"; with a human decision on every case the guard would have tripped after {delay}"
    if not hindsight.cost.known_cases:
        return text
    count = format_quantity(hindsight.cost_if_seen.wrong_action.count, "case")
    return f"{text} and {count} {hindsight.cost_if_seen.words.wrong}"


def _describe_model_cost(cost: ModelCost) -> Iterator[str]:
    """Say how often the model was wrong, by outcomes, or differed from humans."""
    if not cost.cases:
        return
    text = f"The model decided {format_quantity(cost.cases, 'case')} by itself"
    if cost.known_cases:
        text += (
            f": {format_ratio(cost.wrong_action)} {cost.words.wrong}"
            f" ({_format_wrong_share(cost.wrong_action)})"
        )
    if cost.human_wrong_action is not None:
        text += (
            f"; humans decided {format_count(cost.human_wrong_action)} of "
            f"{format_count(cost.human_known_cases)} of these cases wrongly"
        )
    yield text + "."


def _format_wrong_share(wrong: Share) -> str:
    """Format a share of wrong cases; without any, its upper bound."""
    if wrong.count:
        return format_percent(wrong.rate, 2)
    return f"so at most {format_percent(compute_upper_bound(0, wrong.n))}, one-sided 95 %"


def _describe_reviewers(facts: ReportFacts) -> Iterator[str]:
    """Describe the reviewer who stands out most, compared with the others."""
    reviewers = facts.reviewer_agreement.reviewers
    standouts = list_visible_standouts(reviewers)
    more = format_quantity(len(standouts) - 1, "other stands", "others stand")
    suffix = f" {more} out less." if len(standouts) > 1 else ""
    for reviewer, comparison, own_share, rate in standouts[:1]:
        yield (
            f"Reviewer {reviewer.reviewer} stands out{' most' if suffix else ''} among"
            f" {format_quantity(len(reviewers), 'reviewer')}: agrees with"
            f" {COMPARISON_NAMES[comparison]} on {format_percent(own_share.rate)} of"
            f" {format_count(own_share.n)} answers, the others on {format_percent(rate)}.{suffix}"
        )


COMPARISON_NAMES = {"outcome": "the outcome", "others": "other reviewers", "model": "the model"}
