"""A report, a review plan and a comparison as text for a terminal.

The console shows a review plan by the same words.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap as _wrap
from typing import Final

from rollout.engine.records.records import UNREADABLE_REASONS
from rollout.engine.words.event_kinds import is_in_timeline
from rollout.engine.words.evidence_text import (
    describe_losses,
)
from rollout.engine.words.formatting import (
    NO_BREAK_SPACE,
    format_cell_name,
    format_count,
    format_decimal,
    format_decimal_interval,
    format_interval,
    format_number_interval,
    format_number_value,
    format_percent,
    format_percent_range,
    format_quantity,
    format_ratio,
    format_rounded_count,
    prevent_breaks,
    to_sentence,
    wrap_text,
)
from rollout.engine.words.state_text import describe_remark
from rollout.features.reports.figures.agreement import (
    NumberAgreement,
    SetAgreement,
)
from rollout.features.reports.figures.comparison import (
    CellAgreement,
    Comparison,
    ConfusionMatrix,
    LabelFigures,
)
from rollout.features.reports.figures.evidence_facts import (
    NO_COUNTED_DECISION,
    EvidenceFacts,
    describe_uncounted,
)
from rollout.features.reports.figures.facts import ReportFacts
from rollout.features.reports.figures.funnel import (
    FileRowCounts,
    Funnel,
    RowExample,
)
from rollout.features.reports.figures.review_plan import (
    HOPELESS_CHANCE,
    CellReviewPlan,
    Outlook,
    ReviewChange,
    ReviewPlan,
)
from rollout.features.reports.pages.report_tiles import (
    find_leading_evidence,
    list_other_versions,
)
from rollout.features.reports.pages.summary import describe_report, describe_results
from rollout.kernel.statistics.agreement import AgreementCoefficient
from rollout.kernel.statistics.forecast import HORIZON, RUNS
from rollout.kernel.units import (
    FULL_OVERLAP,
    group_pairs,
)

MAX_CELLS = 20  # labels and cells that are listed; JSON has all
TextRow = Sequence[str]


def render_comparison(
    comparison: Comparison,
    numbers: NumberAgreement | None = None,
    sets: SetAgreement | None = None,
) -> str:
    """Return one version's figures as text.

    `numbers` are those of a lever with a number, `sets` those of one with sets of labels.
    """
    return "\n".join(_render_parts(comparison, numbers, sets)).replace(NO_BREAK_SPACE, " ")


def render_table(rows: Sequence[TextRow], left_aligned: int) -> Iterator[str]:
    """Yield rows as aligned lines.

    `left_aligned` is the number of left-aligned columns; the others are right-aligned.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        aligned = (
            text.ljust(width) if index < left_aligned else text.rjust(width)
            for index, (text, width) in enumerate(cells)
        )
        yield f"  {'  '.join(aligned)}".rstrip()


def _render_parts(
    comparison: Comparison, numbers: NumberAgreement | None, sets: SetAgreement | None
) -> Iterator[str]:
    yield from _render_agreement(comparison)
    for title, coefficient in (("kappa", comparison.kappa), ("Gwet's AC1", comparison.ac1)):
        if coefficient is not None:
            yield _format_coefficient(title, coefficient)
    if comparison.cost is not None:
        yield f"  mean cost a case of following the model: {format_decimal(comparison.cost, 4)}"
    if numbers is not None:
        yield from _render_numbers(numbers)
    if sets is not None:
        yield from _render_sets(sets)
        yield from _render_labels(comparison.labels)
    if comparison.label_matrix is not None and comparison.label_matrix.labels:
        yield from _render_confusion(comparison.label_matrix)
        yield from _render_labels(comparison.labels)
    if comparison.cells:
        yield from _render_cell_rows(
            comparison.cells, has_kappa=comparison.label_matrix is not None
        )


def _render_agreement(comparison: Comparison) -> Iterator[str]:
    """Yield agreement with its interval, and its bounds where answers are missing."""
    agreement = f"{format_ratio(comparison.agreement)} pairs agree"
    name = " · ".join(part for part in (comparison.version, comparison.lever) if part)
    yield f"{name}: {agreement}" if name else agreement
    yield (
        f"  agreement {format_percent(comparison.agreement.rate)}, 95 % interval"
        f" {format_interval(comparison.agreement)}"
    )
    if comparison.unjudged and comparison.bounds:
        unreviewed = format_quantity(comparison.unjudged, "case")
        yield (
            f"  {unreviewed} without one human answer: agreement of all cases is"
            f" {format_percent_range(*comparison.bounds)}, 95 % interval, whatever the missing"
            " answers"
        )


def _format_coefficient(title: str, coefficient: AgreementCoefficient) -> str:
    if coefficient.low is None:
        return f"  {title}: {coefficient.method}"
    interval = f"{format_decimal(coefficient.low)} to {format_decimal(coefficient.high)}"
    return f"  {title} {format_decimal(coefficient.value)}, 95 % interval {interval}"


def _render_sets(sets: SetAgreement) -> Iterator[str]:
    """Yield how many sets are equal, alpha, and how many answers are no sets."""
    if sets.overlap < FULL_OVERLAP:
        yield f"  sets agree from {format_percent(sets.overlap)} of their labels in common on"
        yield f"  equal sets: {format_ratio(sets.equal)}, {format_percent(sets.equal.rate)}"
    yield _format_coefficient("Krippendorff's alpha by MASI distance", sets.alpha)
    for count, side in ((sets.wrong_human, "humans"), (sets.wrong_model, "the model")):
        if count:
            answers = format_quantity(count, "answer")
            yield f"  no set of the labels: {answers} of {side}; only the same text agrees"


def _render_numbers(numbers: NumberAgreement) -> Iterator[str]:
    """Yield the differences, the concordance, and the cost by band."""
    rows = [
        [name, format_number_value(figure.value, scale.unit), format_number_interval(figure)]
        for scale in (numbers.differences, numbers.relative)
        for name, figure in (
            ("bias (model − human)", scale.bias),
            ("lower limit of agreement", scale.lower),
            ("upper limit of agreement", scale.upper),
        )
    ]
    for name, figure in (
        ("Lin's concordance", numbers.concordance),
        ("mean cost a case", numbers.cost),
    ):
        rows.append([name, format_decimal(figure.value), format_decimal_interval(figure)])
    yield from ("", f"Numbers, tolerance {numbers.tolerance}")
    yield from render_table([["", "value", "95 %"], *rows], left_aligned=1)
    bands = [
        [
            band.name,
            f"{band.cost:g}",
            format_count(band.share.count),
            format_percent(band.share.rate),
        ]
        for band in numbers.bands
    ]
    header = ["error of the model", "cost", "pairs", "share"]
    yield ""
    yield from render_table([header, *bands], left_aligned=1)


def _render_confusion(matrix: ConfusionMatrix) -> Iterator[str]:
    """Yield the matrix, or the most frequent confusions if there are too many labels."""
    yield ""
    if len(matrix.labels) <= MAX_CELLS // 2:
        yield "Confusion matrix: humans in rows, the model in columns"
        names = [f"{index} {label}" for index, label in enumerate(matrix.labels, 1)]
        rows = [
            [name, *map(format_count, row)] for name, row in zip(names, matrix.counts, strict=True)
        ]
        yield from render_table([["", *map(str, range(1, len(names) + 1))], *rows], left_aligned=1)
        return
    yield "Confusion matrix: most frequent pairs (--json has all)"
    pairs = sorted(matrix.list_confusions(), key=lambda pair: (-pair.times, pair.human, pair.model))
    rows = [[pair.human, pair.model, format_count(pair.times)] for pair in pairs[:MAX_CELLS]]
    yield from render_table([["human", "model", "n"], *rows], left_aligned=2)


def _render_labels(labels: Sequence[LabelFigures]) -> Iterator[str]:
    yield from ("", "Labels, most frequent human label first")
    rows = [
        [
            figures.label,
            *map(format_count, (figures.human, figures.model, figures.both)),
            *(format_percent(figures.recall.rate), format_interval(figures.recall)),
            *(format_percent(figures.precision.rate), format_interval(figures.precision)),
        ]
        for figures in labels[:MAX_CELLS]
    ]
    header = ["", "human", "model", "both", "recall", "95 %", "precision", "95 %"]
    yield from render_table([header, *rows], left_aligned=1)
    yield from _render_more(len(labels))


def _render_cell_rows(cells: Sequence[CellAgreement], *, has_kappa: bool) -> Iterator[str]:
    note = (
        " (with many cells, the lowest are low partly by chance)" if len(cells) > MAX_CELLS else ""
    )
    yield from ("", f"Cells, lowest agreement first{note}")
    ordered = sorted(cells, key=lambda cell: cell.agreement.rate or 0.0)
    rows = [
        [
            " · ".join(part for part in (cell.site, cell.window) if part),
            *(
                format_count(cell.agreement.n),
                format_percent(cell.agreement.rate),
                format_interval(cell.agreement),
            ),
            *(["too few" if cell.kappa is None else format_decimal(cell.kappa)] * has_kappa),
        ]
        for cell in ordered[:MAX_CELLS]
    ]
    header = ["", "pairs", "agreement", "95 %", *(["kappa"] * has_kappa)]
    yield from render_table([header, *rows], left_aligned=1)
    yield from _render_more(len(cells))


def _render_more(count: int) -> Iterable[str]:
    return () if count <= MAX_CELLS else (f"  and {count - MAX_CELLS} more (--json has all)",)


DEFAULT_WIDTH = 80
MAX_ROWS = 40  # of a list; report.html has more
MAX_REJECTED_ROWS = 5
INDENT = "    "


def render_text_report(facts: ReportFacts, width: int = DEFAULT_WIDTH) -> str:
    """Return the report as plain text, wrapped at `width` characters."""
    return "\n".join(_render_lines(facts, width)) + "\n"


def wrap_lines(text: str, width: int, *, subsequent_indent: str = "") -> list[str]:
    """Return the wrapped lines of a text, without breaks before a per cent sign."""
    lines = _wrap(prevent_breaks(text), width, subsequent_indent=subsequent_indent)
    return [line.replace(NO_BREAK_SPACE, " ") for line in lines]


def _render_lines(facts: ReportFacts, width: int) -> Iterator[str]:
    title, *head = describe_report(facts)
    yield title
    for line in head:
        yield from wrap_lines(line, width)
    yield ""
    for line in describe_results(facts):
        yield from wrap_lines(f"- {line}", width, subsequent_indent="  ")
    yield from _render_heading("Timeline (local time of each site)", width)
    yield from _render_timeline(facts, width)
    yield from _render_heading("Cells: stage, version, next step", width)
    yield from _render_cells(facts, width)
    yield from _render_heading("Records: read, used, compared", width)
    for file in facts.files:
        yield from wrap_lines(_describe_file(file), width, subsequent_indent=INDENT)
    for row in [row for row in facts.rejected_examples if row.reason in UNREADABLE_REASONS][
        :MAX_REJECTED_ROWS
    ]:
        yield from wrap_lines(f"  {_describe_row(row)}", width, subsequent_indent=INDENT)
    if facts.planted_cases:
        planted = format_quantity(facts.planted_cases, "planted case")
        yield from wrap_lines(f"{planted}, not in these figures", width, subsequent_indent=INDENT)
    for funnel in facts.funnels:
        for line in _render_funnel(funnel):
            yield from wrap_lines(line, width, subsequent_indent=INDENT)


def _render_heading(title: str, width: int) -> Iterator[str]:
    yield ""
    yield title
    yield "-" * min(len(title), width)


def _render_timeline(facts: ReportFacts, width: int) -> Iterator[str]:
    rows = [
        event for event in facts.events if is_in_timeline(event) and event.kind != "PolicyApplied"
    ]
    cell_width = max((len(format_cell_name(event.site, event.window)) for event in rows), default=0)
    time_width = max((len(event.local) for event in rows), default=0)
    for row in rows[:MAX_ROWS]:
        prefix = (
            f"{row.local:>{time_width}} "
            f" {format_cell_name(row.site, row.window):<{min(cell_width, 30)}}  "
        )
        yield from wrap_lines(
            prefix + row.short_text, width, subsequent_indent=" " * (len(prefix) + 2)
        )
    if len(rows) > MAX_ROWS:
        yield f"... and {format_quantity(len(rows) - MAX_ROWS, 'more event')}, in report.html"


def _render_cells(facts: ReportFacts, width: int) -> Iterator[str]:
    """Yield the leading version and next step of each cell; equal cells share a line."""
    leading = (find_leading_evidence(facts, cell) for cell in facts.stages)
    rows = [row for row in leading if row is not None and row.closed_units]
    groups = _group_equal_cells(rows)
    for group in groups[:MAX_ROWS]:
        first = group[0]
        losses_text = _describe_group_losses(group)
        text = " ".join(map(to_sentence, filter(None, (_describe_group_step(group), losses_text))))
        prefix = f"{_name_cells(group, len(facts.stages))}: {first.stage}, {first.version}"
        yield from wrap_lines(f"{prefix}. {text}", width, subsequent_indent=INDENT)
        others = list_other_versions(facts, first) if len(group) == 1 else []
        for other in others:
            line = f"{INDENT}{other.version}: {to_sentence(other.next_step)}"
            yield from wrap_lines(line, width, subsequent_indent=INDENT * 2)
    if len(groups) > MAX_ROWS:
        more = sum(len(group) for group in groups[MAX_ROWS:])
        yield f"... and {format_quantity(more, 'more cell')}, in report.html"
    silent_count = len(facts.stages) - len(rows)
    if silent_count:
        yield from wrap_lines(f"{format_quantity(silent_count, 'cell')} in shadow, no data.", width)


def _group_equal_cells(rows: Iterable[EvidenceFacts]) -> list[list[EvidenceFacts]]:
    """Return the cells by stage, version and next step.

    Cells without a counted decision are equal if the reasons are, whatever their counts.
    """

    def build_key(row: EvidenceFacts) -> tuple[str, ...]:
        step = (row.next_step,) if row.decided_units else ("", *sorted(row.missing_reasons))
        return (row.stage, row.version, *step)

    return list(group_pairs((build_key(row), row) for row in rows).values())


def _describe_group_step(group: Sequence[EvidenceFacts]) -> str:
    """Return the next step of equal cells, with the sums of their uncounted units."""
    reasons = sum((Counter(row.missing_reasons) for row in group), Counter[str]())
    if len(group) == 1 or not reasons:
        return group[0].next_step
    gate_text = f"{group[0].gate.to}: " if group[0].gate else ""
    return f"{gate_text}{NO_COUNTED_DECISION}; {describe_uncounted(reasons)}"


def _describe_group_losses(group: Sequence[EvidenceFacts]) -> str:
    """Return why units of equal cells are missing, together; "" where the step says it."""
    losses = sum((Counter(row.losses) for row in group), Counter[str]())
    if not losses or any(row.missing_reasons and not row.decided_units for row in group):
        return ""
    return describe_losses(sum(row.closed_units for row in group), losses)


def _name_cells(group: Sequence[EvidenceFacts], total: int) -> str:
    """Name the cells of a group; all of them as a number."""
    if len(group) == total > 1:
        return f"All {format_count(total)} cells"
    names = [row.cell_name for row in group]
    return names[0] if len(names) == 1 else f"{format_count(len(names))} cells ({', '.join(names)})"


def _describe_file(file: FileRowCounts) -> str:
    text = f"{file.file}: {format_quantity(file.rows, 'row')} read, {format_count(file.used)} used"
    return (
        text
        + _format_reasons("rejected", file.set_aside)
        + _format_reasons(
            "used, with a remark",
            {describe_remark(reason): count for reason, count in file.notes.items()},
        )
    )


def _describe_row(row: RowExample) -> str:
    """Describe one rejected row: file, line, column, reason and detail."""
    location = row.file if row.line is None else f"{row.file}:{row.line}"
    problem = row.reason if row.column is None else f"{row.column}: {row.reason}"
    return f"{location}: {problem}: {row.detail}"


def _format_reasons(title: str, counts: dict[str, int]) -> str:
    if not counts:
        return ""
    rows: Iterable[str] = (f"{format_count(n)} {reason}" for reason, n in counts.items())
    return f"; {title}: {', '.join(rows)}"


def _render_funnel(funnel: Funnel) -> Iterator[str]:
    """Yield the steps of a version's funnel; steps without a loss are skipped."""
    yield funnel.version
    for step in funnel.steps:
        if step.lost or step is funnel.steps[0]:
            lost = f"; {describe_uncounted(step.lost)}" if step.lost else ""
            yield f"  {format_count(step.remaining)} {step.name}{lost}"
    if funnel.agreement.n:
        share = format_percent(funnel.agreement.rate)
        yield f"  {format_count(funnel.agreement.count)} agree ({share})"


COLUMNS: Final = (
    "cell",
    "next stage",
    "outlook",
    "decisions (50 %)",
    "decisions (90 %)",
    "days (50 %)",
    "ever opens",
    "decisions per opening",
    "planned decisions",
)
OUTLOOK_TEXTS: Final[dict[Outlook, str]] = {
    "met": "gate is met",
    "on course": "on course",
    "uncertain": "uncertain",
    "hopeless": "hopeless",
    "waits": "needs no review",
    "no data": "no data",
}
SLOW_DAYS: Final = 365
"""Days beyond which a cell that opens at the present rate isn't called on course."""
MIN_WHOLE_PERCENT: Final = 0.01
SLOW_TEXT: Final = "over a year"
_NONE: Final = "–"


@dataclass(frozen=True, slots=True)
class ReviewPlanRow:
    """One cell of a review plan as text: its table row, and sentences about it."""

    name: str
    cells: tuple[str, ...]
    reason: str
    changes: tuple[str, ...]


def describe_review_plan(plan: ReviewPlan) -> Iterator[str]:
    """Yield sentences about a review plan: what its decisions are expected to open, and how."""
    used = plan.decisions - plan.unplanned
    if not plan.cells:
        yield "No cell has a next stage."
    else:
        yield (
            f"The next {format_quantity(plan.decisions, 'decision')}: {format_count(used)} planned,"
            f" in the cheapest order; they are expected to open {plan.expected_openings:.1f} of"
            f" {format_quantity(len(plan.cells), 'cell')}."
        )
    if plan.cells and plan.unplanned:
        yield (
            f"{format_quantity(plan.unplanned, 'decision')} not planned: by then more evidence is"
            " known, so plan again."
        )
    if plan.closed_cells:
        yield f"No gate leads further in {format_quantity(plan.closed_cells, 'cell')}."


def describe_method() -> Iterator[str]:
    """Yield what the figures of a review plan mean."""
    yield (
        f"Each figure is of {RUNS} simulated runs, with true shares as likely as the evidence makes"
        " them. 50 %: half of the runs have opened by then; 90 %: nine of ten. Ever opens: share of"
        " the runs. Decisions per opening: spent for each cell that opens, if you stop where more"
        " of them help least; the order follows it."
    )
    yield (
        f"On course: half of the runs open within {SLOW_DAYS} days. Hopeless: opens with a chance"
        f" of less than {HOPELESS_CHANCE * 100:.0f} %, at the present rate. A run ends after"
        f" {format_count(HORIZON)} records. Stops, suspensions, freezes,"
        " waves and approvals are not included."
    )


def build_plan_row(row: CellReviewPlan) -> ReviewPlanRow:
    """Return a cell's row as text; a gate that is met needs no figures."""
    floor = f", {row.floor}" if row.floor else ""
    figures: tuple[str, ...] = (
        _format_decisions(row.decisions_p50),
        _format_decisions(row.decisions_p90),
        _format_days(row.days),
        _NONE if row.ever_chance is None else _format_share(row.ever_chance),
        _NONE
        if row.decisions_per_opening is None
        else format_rounded_count(round(row.decisions_per_opening)),
        format_count(row.planned) if row.planned else _NONE,
    )
    if row.outlook == "met":
        figures = (_NONE,) * len(figures)
    name = f"{row.cell_name} ({row.version})"
    cells = (f"{row.to}{floor}", _describe_outlook(row), *figures)
    return ReviewPlanRow(name, cells, row.reason, tuple(map(describe_change, row.changes)))


def _describe_outlook(row: CellReviewPlan) -> str:
    is_slow = row.outlook == "on course" and row.days is not None and row.days > SLOW_DAYS
    return SLOW_TEXT if is_slow else OUTLOOK_TEXTS[row.outlook]


def describe_change(change: ReviewChange) -> str:
    """Describe what another setting would change."""
    needs = f"about {_format_decisions(change.decisions)} decisions"
    if change.decisions is None:
        needs = f"more than {format_count(HORIZON)} records"
    if change.days is not None:
        needs += f", {_format_days(change.days)} day{'' if change.days < 1.5 else 's'}"
    if change.decisions == 0:
        needs = "no further decision"
    if change.setting == "planted cases":
        return (
            f"if the gate took its recall of {change.label} from planted cases:"
            f" {format_quantity(change.planted, 'planted case')} if the model gets each right, and"
            f" {needs} for the rest"
        )
    other = "" if change.other_share is None else format_percent(change.other_share, 0)
    now = "" if change.share is None else f" instead of {format_percent(change.share, 0)}"
    return f"with a blind share of {other}{now}: {needs}"


def format_review_plan(plan: ReviewPlan) -> str:
    """Format a review plan for a terminal, without a newline at the end."""
    return "\n".join(_list_lines(plan)).replace(NO_BREAK_SPACE, " ")


def _list_lines(plan: ReviewPlan) -> Iterator[str]:
    for sentence in describe_review_plan(plan):
        yield from wrap_text(sentence)
    if not plan.cells:
        return
    rows = [build_plan_row(row) for row in plan.cells]
    yield ""
    yield from render_table([COLUMNS, *((row.name, *row.cells) for row in rows)], left_aligned=3)
    yield ""
    for row in rows:
        if row.reason or row.changes:
            yield from wrap_text(f"{row.name}: {row.reason}", indent="  ")
            for change in row.changes:
                yield from wrap_text(change, indent="    ")
    yield ""
    for sentence in describe_method():
        yield from wrap_text(sentence)


def _format_decisions(decisions: int | None) -> str:
    return _NONE if decisions is None else format_rounded_count(decisions)


def _format_days(days: float | None) -> str:
    if days is None:
        return _NONE
    return format_rounded_count(round(days)) if days >= 1 or not days else "under 1"


def _format_share(share: float) -> str:
    """Return a share of the runs in per cent; only all of them are 100 %."""
    if 0 < share < MIN_WHOLE_PERCENT or 1 - MIN_WHOLE_PERCENT < share < 1:
        return f"{'under 1' if share < MIN_WHOLE_PERCENT else 'over 99'}{NO_BREAK_SPACE}%"
    return format_percent(share, 0)


ESCAPES: Final = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]<>#|~!&$@"} | {"\n": " ", "\r": " "})


def render_message_summary(facts: ReportFacts, view: str | None = None) -> str:
    """Return the text of a message to readers of one view, as Markdown that names can't change."""
    results = (f"- {escape_markdown(line)}" for line in describe_results(facts, view))
    return "\n".join((*map(escape_markdown, describe_report(facts)), "", *results))


def escape_markdown(text: str) -> str:
    r"""Return a text with Markdown escaped, for untrusted names and labels.

    >>> escape_markdown("a|b <img> @all")
    'a\\|b \\<img\\> \\@all'
    """
    return text.translate(ESCAPES)
