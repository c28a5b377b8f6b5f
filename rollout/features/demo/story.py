"""The story of an example: its replay in words, its report's files, and what plain rules would do.

Each plain rule opens one cell once and for good. The rules look at each decision as it comes, count
every case and drop missing decisions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from textwrap import fill
from zoneinfo import ZoneInfo

import polars as pl

from rollout.engine.words.formatting import (
    LINE_WIDTH,
    NO_BREAK_SPACE,
    describe_duration,
    format_count,
    format_local_time,
    format_percent,
    format_quantity,
    format_ratio,
    is_amount,
    is_difference,
    wrap_text,
)
from rollout.features.demo.catalog import ExampleSystem, build_replay_request
from rollout.features.replay.replay import (
    ReplayedFiles,
    build_replay_inputs,
    build_report_files,
    replay_files,
)
from rollout.features.replay.requests import Progress
from rollout.features.reports.figures.evidence_facts import EvidenceFacts
from rollout.features.reports.figures.facts import ReportFacts, compute_report_facts
from rollout.features.reports.figures.methods import (
    ModelCost,
    build_naive_cases,
    compute_model_cost,
    find_crossings,
    find_first_threshold,
)
from rollout.features.reports.figures.oversight import Hindsight
from rollout.features.reports.inputs.cell_facts import CellStages, ConditionFacts
from rollout.features.reports.inputs.inputs import ReportInputs
from rollout.features.reports.pages.summary import describe_gain
from rollout.kernel.calendar.instants import SHADOW, Cell, from_micros

SURE = 0.9
CELL_RULE = "the cell's agreement is at the threshold, from 100 cases on"
BLOCKS_RULE = "three windows of 50 cases in a row are at the threshold"
ROLLOUT_RULE = "the whole rollout's agreement is at the threshold, from 100 cases on"
CONFIDENCE_RULE = "the model decides each case with a confidence of at least 90 %"


@dataclass(frozen=True, slots=True)
class PlainRuleResult:
    """What one plain rule would have done with a version in a cell.

    Attributes:
        rule: its text.
        opened_at: when it opens the cell; None if never.
        model_cost: of the cases that the model would have decided from then on.
    """

    rule: str
    opened_at: datetime | None
    model_cost: ModelCost


def compute_plain_rules(
    inputs: ReportInputs, cell: Cell, version: str, threshold: float
) -> tuple[PlainRuleResult, ...]:
    """Return what each plain rule would have done with a version in a cell."""
    predictions = inputs.records.predictions.filter(pl.col("version") == version)
    confidences = predictions.select("case_key", "version", "confidence")
    cases = build_naive_cases(inputs, inputs.pairs, predictions)
    cases = cases.join(confidences, on=["case_key", "version"], how="left")
    cell_cases = cases.filter((pl.col("site") == cell.site) & (pl.col("window") == cell.window))
    sure_cases = cell_cases.filter(pl.col("confidence") >= SURE)
    occurred_us = pl.col("occurred_us")
    by_agreement = (
        # no case is after a null
        _sum_cases(rule, opened_us, cell_cases.filter(occurred_us > pl.lit(opened_us, pl.Int64)))
        for rule, opened_us in _find_openings(cases, cell, threshold)
    )
    first_us = sure_cases["occurred_us"].min()
    return (*by_agreement, _sum_cases(CONFIDENCE_RULE, first_us, sure_cases))


def _find_openings(
    cases: pl.DataFrame, cell: Cell, threshold: float
) -> Iterator[tuple[str, int | None]]:
    """Yield each rule of agreement with the microsecond at which it opens the cell, or None."""
    reviewed = cases.filter(pl.col("agrees").is_not_null())
    agrees, times = reviewed["agrees"].to_numpy(), reviewed["occurred_us"]
    in_cell = ((reviewed["site"] == cell.site) & (reviewed["window"] == cell.window)).to_numpy()
    crossings = find_crossings(agrees, in_cell, threshold)
    for rule, index in zip((CELL_RULE, BLOCKS_RULE, ROLLOUT_RULE), crossings, strict=True):
        yield rule, None if index is None else int(times[index])


def _sum_cases(rule: str, opened_us: object, cases: pl.DataFrame) -> PlainRuleResult:
    return PlainRuleResult(
        rule=rule,
        opened_at=from_micros(opened_us) if isinstance(opened_us, int) else None,
        model_cost=compute_model_cost(cases.with_columns(audited=pl.lit(value=False))),
    )


ARROW = " → "
NARROWED, SUSPENDED = "Narrowed", "Suspended"
NEW_VERSION_EVENTS = {"VersionFirstUsed", "TakenOver", "Widened"}


def play_example(
    example: ExampleSystem, progress: Progress | None = None
) -> tuple[str, dict[str, bytes]]:
    """Replay an example; return its terminal text and report files."""
    replayed_files = replay_files(build_replay_request(example), progress)
    inputs = build_replay_inputs(replayed_files)
    story = ExampleStory(example, replayed_files, inputs, compute_report_facts(inputs))
    return story.describe(), build_report_files(replayed_files, inputs, story.facts, example.name)


@dataclass(frozen=True, slots=True)
class ExampleStory:
    """An example's replay in words, for a reader without other knowledge."""

    example: ExampleSystem
    replayed_files: ReplayedFiles
    inputs: ReportInputs
    facts: ReportFacts

    def describe(self) -> str:
        """Return the terminal text."""
        sections = (
            self._describe_widening(),
            self._describe_held_cell(),
            self._describe_narrowing(),
            self._describe_new_versions(),
            self._describe_gains(),
            self._describe_price(),
        )
        texts = [text for text in map("\n".join, sections) if text]
        numbered = [f"{number} {text}" for number, text in enumerate(texts, start=1)]
        return "\n\n".join(["\n".join(self._describe_beginning()), *numbered]) + "\n"

    def _describe_beginning(self) -> Iterator[str]:
        example, files = self.example, self.replayed_files
        case_count = format_count(files.records.cases.height)
        counts = (
            format_quantity(len(files.policy.sites), "site"),
            f"{case_count} {example.case[1]}",
            format_quantity(len(example.versions), "version"),
        )
        yield f"{example.title.upper()}: {', '.join(counts)}"
        yield from wrap_text(example.idea)
        yield ""
        yield from wrap_text(
            f"{example.story.strip()} Every cell starts in shadow: {example.people[1]} decide, and"
            " the model's answers are only compared with theirs. Evidence and approvals widen it."
        )
        yield from wrap_text(
            f"Real: {example.real} Simulated: {example.simulated} Every approval is simulated too"
            " (4 hours after its proposal). Times are the local times of each site."
        )

    def _describe_widening(self) -> Iterator[str]:
        stages = self.facts.stages
        widened_cells = [cell for cell in stages if cell.widened]
        yield f"WIDENED: {len(widened_cells)} of {len(stages)} cells, each on its own evidence"
        yield from self.describe_stages()

    def describe_stages(self) -> Iterator[str]:
        """Yield the stages of each cell that was widened, by start day."""
        widened_cells = [cell for cell in self.facts.stages if cell.widened]
        width = max((len(_name_cell(cell)) for cell in widened_cells), default=0) + 4
        for cell in widened_cells:
            path_text = fill(
                _describe_stage_path(cell, self._get_timezone(cell.site)),
                LINE_WIDTH,
                initial_indent=f"  {_name_cell(cell)}".ljust(width),
                subsequent_indent=" " * (width + 2),
            )
            yield path_text.replace(NO_BREAK_SPACE, " ")

    def _describe_held_cell(self) -> Iterator[str]:
        """Describe the cell that is rightly held, and what plain rules would have done."""
        held_cell = self.example.held
        yield f"HELD at {held_cell.at_most}: {held_cell.site} {held_cell.window}"
        yield from wrap_text(held_cell.reason, "  ")
        for evidence in self.facts.evidence:
            if (evidence.site, evidence.window) == (held_cell.site, held_cell.window):
                yield from self._describe_evidence(evidence)
        for version in self.held_versions:
            yield from self._describe_plain_rules(version)
        others = [
            cell
            for cell in self.facts.stages
            if not cell.widened and (cell.site, cell.window) != (held_cell.site, held_cell.window)
        ]
        if others:
            names = ", ".join(_name_cell(cell) for cell in others)
            yield from wrap_text(f"also never above shadow: {names}", "  ")

    @property
    def held_versions(self) -> tuple[str, ...]:
        """Return the versions that must not get the held cell."""
        version = self.example.held.version
        return (version,) if version else tuple(self.example.versions)

    def _describe_evidence(self, evidence: EvidenceFacts) -> Iterator[str]:
        if evidence.gate is None or evidence.version not in self.held_versions:
            return
        for condition in evidence.gate.conditions:
            yield from wrap_text(f"{evidence.version}: {describe_condition(condition)}", "  ")

    def compute_plain_rules(self, version: str) -> tuple[PlainRuleResult, ...]:
        """Return what plain rules would have done with a version in the held cell."""
        held_cell = self.example.held
        return compute_plain_rules(
            self.inputs,
            Cell(held_cell.site, held_cell.window),
            version,
            self.find_threshold(),
        )

    def find_threshold(self) -> float:
        """Return the agreement that the held cell's first gate asks for, else the example's."""
        cell = Cell(self.example.held.site, self.example.held.window)
        threshold = find_first_threshold(self.replayed_files.policy, cell)
        return self.example.plain_threshold if threshold is None else threshold

    def _describe_plain_rules(self, version: str) -> Iterator[str]:
        rules = self.compute_plain_rules(version)
        if any(rule.opened_at is not None for rule in rules):
            threshold = format_percent(self.find_threshold(), 0)
            yield f"  Plain rules would have let {version} decide there (threshold {threshold}):"
        zone = self._get_timezone(self.example.held.site)
        for rule in rules:
            if rule.opened_at is not None:
                since = format_day_month(rule.opened_at, zone)
                yield from wrap_text(f"from {since} on: {rule.rule}", "    ")
                yield from wrap_text(self.describe_rule_errors(rule), "      ")

    def describe_rule_errors(self, rule: PlainRuleResult) -> str:
        """Describe the wrong actions among the cases with a known truth, also those of humans."""
        cost = rule.model_cost
        humans = self._describe_human_errors(
            cost.human_wrong_action, cost.human_known_cases, cost.known_cases
        )
        wrong = format_count(cost.wrong_action.count)
        return f"{wrong} of {self._count_wrong(cost.known_cases)}{humans}"

    def _get_timezone(self, site: str) -> str:
        return self.replayed_files.policy.sites_by_id[site].timezone

    def _describe_cause(self, site: str, window: str) -> list[str]:
        """Describe the changes that the records' makers made, unknown to the engine."""
        texts = [
            cause.text
            for cause in self.example.causes
            if (cause.site, cause.window) == (site, window)
        ]
        return [line for text in texts for line in wrap_text(f"{site} {window}: {text}", "  ")]

    def _describe_narrowing(self) -> Iterator[str]:
        events = [event for event in self.facts.events if event.kind == NARROWED]
        suspended = sum(event.kind == SUSPENDED for event in self.facts.events)
        also = f", suspended {format_quantity(suspended, 'time')}" if suspended else ""
        yield f"NARROWED automatically: {format_quantity(len(events), 'time')}{also}"
        for cell in dict.fromkeys((event.site or "", event.window or "") for event in events):
            yield from self._describe_cause(*cell)
        hindsights = {
            (hindsight.site, hindsight.window, hindsight.narrowed_at): hindsight
            for hindsight in self.facts.hindsights
        }
        for event in events:
            hindsight = hindsights.get((event.site or "", event.window or "", event.at))
            if hindsight is None:
                place = f"{event.site} {event.window}, {event.local}: {event.short_text}"
                yield from wrap_text(place, "  ")
            else:
                yield from self._describe_narrowed_cell(hindsight)

    def _describe_narrowed_cell(self, hindsight: Hindsight) -> Iterator[str]:
        timezone = self._get_timezone(hindsight.site)
        at = format_local_time(hindsight.narrowed_at, timezone)
        step_text = f"{hindsight.version} {hindsight.from_stage}{ARROW}{hindsight.to_stage}"
        yield f"  {hindsight.site} {hindsight.window}, {at}: {step_text}"
        counted_text = f"{format_ratio(hindsight.sampled_bad_records)} {hindsight.counted}"
        yield from wrap_text(f"guard {hindsight.guard}: {counted_text}", "    ")
        if hindsight.cost.cases:
            yield from wrap_text(self._describe_delay(hindsight, timezone), "    ")
        if hindsight.cost.cases and hindsight.cost_if_seen and hindsight.seen_at is not None:
            sooner_delay = describe_duration(hindsight.seen_at - hindsight.began_at)
            wrong_count = hindsight.cost_if_seen.wrong_action.count
            yield from wrap_text(
                f"with a human decision on every {self.example.case[0]}, the guard would have"
                f" tripped after {sooner_delay} and {self._count_wrong(wrong_count)}; the"
                " difference is the price of auditing a sample",
                "    ",
            )

    def _describe_delay(self, hindsight: Hindsight, timezone: str) -> str:
        cost = hindsight.cost
        delay = describe_duration(hindsight.narrowed_at - hindsight.began_at)
        humans = self._describe_human_errors(
            cost.human_wrong_action, cost.human_known_cases, cost.cases
        )
        return (
            f"the errors began about {format_local_time(hindsight.began_at, timezone)}; the guard"
            f" tripped {delay} later; until then the model decided"
            f" {self._count_cases(cost.cases)}, {cost.wrong_action.count} of them"
            f" {self.example.wrong}{humans}"
        )

    def _count_cases(self, count: int) -> str:
        return f"{format_count(count)} {self.example.case[0 if count == 1 else 1]}"

    def _count_wrong(self, count: int) -> str:
        return f"{self._count_cases(count)} {self.example.wrong}"

    def _describe_human_errors(
        self, wrong_count: int | None, decided_count: int, case_count: int
    ) -> str:
        """Describe the human errors on the same cases; nothing if they are unknown."""
        if wrong_count is None:
            return ""
        of_all = "" if decided_count == case_count else f" of {format_count(decided_count)}"
        return f" ({self.example.people[1]} in the history: {format_count(wrong_count)}{of_all})"

    def _describe_new_versions(self) -> Iterator[str]:
        """Describe what versions after the first one did, if there are any."""
        later = list(self.example.versions)[1:]
        if not later:
            return
        yield f"NEW VERSIONS, which also start in shadow: {', '.join(later)}"
        for event in self.facts.events:
            if event.version in later and event.kind in NEW_VERSION_EVENTS:
                location = f"{event.site} {event.window}: " if event.site else ""
                timezone_text = "" if event.site else f" ({self.facts.identity.timezone})"
                yield f"  {event.local:>16}  {location}{event.short_text}{timezone_text}"

    def _describe_gains(self) -> Iterator[str]:
        if not self.facts.gains:
            return
        yield "WHAT IT BROUGHT, by a randomized share of the cases"
        for gain in self.facts.gains:
            yield from wrap_text(describe_gain(gain), "  ")

    def _describe_price(self) -> Iterator[str]:
        model_cost, example = self.facts.model_cost, self.example
        unaudited_count = format_count(model_cost.cases - model_cost.audited)
        yield (
            f"THE PRICE: the model decided {self._count_cases(model_cost.cases)} by itself,"
            f" {unaudited_count} of them unaudited"
        )
        humans = self._describe_human_errors(
            model_cost.human_wrong_action, model_cost.human_known_cases, model_cost.cases
        )
        if model_cost.known_cases:
            wrong_text = f"{example.wrong}: {format_ratio(model_cost.wrong_action)}{humans}"
            yield from wrap_text(wrong_text, "  ")
        outliers = [
            reviewer
            for reviewer in self.facts.reviewer_agreement.reviewers
            if reviewer.clearly_below_in
        ]
        if outliers and outliers[0].with_outcome.rate is not None:
            wrong_share = format_percent(1 - outliers[0].with_outcome.rate)
            reviewer_count = f"{len(self.facts.reviewer_agreement.reviewers)} {example.people[1]}"
            yield from wrap_text(
                f"{len(outliers)} of {reviewer_count} stand out, {outliers[0].reviewer} most: wrong"
                f" in {wrong_share} of {example.case[1]}. Human errors count as disagreements, so"
                " that site is widened later.",
                "  ",
            )


def _name_cell(cell: CellStages) -> str:
    return f"{cell.site} {cell.window}"


def describe_condition(condition: ConditionFacts) -> str:
    """Describe a condition; an unmet one may lack evidence alone."""
    if is_amount(condition.measure):
        sign = "+" if is_difference(condition.measure) else ""
        is_known = condition.estimate is not None
        mean = f"{condition.estimate:{sign}.3g} over " if is_known else ""
        figure = f"{mean}{format_count(condition.n)} records"
    else:
        counted = f"{format_count(condition.counts[0])} of {format_count(condition.n)}"
        figure = f"{counted} ({format_percent(condition.estimate)})"
    if condition.met:
        return f"the gate needs {condition.condition}: met, {figure}"
    return f"{condition.describe_need()}: {figure} so far"


def _describe_stage_path(cell: CellStages, timezone: str) -> str:
    """Describe the stages of a cell by start day, without the first shadow."""
    stage_starts = [
        (stage, next(intervals).since)
        for stage, intervals in groupby(cell.intervals, lambda interval: interval.stage)
    ]
    shown_steps = stage_starts[1:] if stage_starts[0][0] == SHADOW else stage_starts
    steps_in_words = [
        f"{format_day_month(since, timezone)} {stage}" for stage, since in shown_steps
    ]
    return ARROW.join(step.replace(" ", NO_BREAK_SPACE) for step in steps_in_words)


def format_day_month(at: datetime, timezone: str) -> str:
    """Return the day and month at a site, as "6 Oct"."""
    local_time = at.astimezone(ZoneInfo(timezone))
    return f"{local_time.day} {local_time:%b}"
