"""The facts of a report: numbers with their intervals, and nothing about how they are shown."""

from dataclasses import dataclass

from rollout.reports.actions import ActionChange, action_changes
from rollout.reports.agreement import Agreement, agreement_figures
from rollout.reports.courses import courses
from rollout.reports.divergences import Divergences, divergence_frame, divergences_of
from rollout.reports.evidence_facts import EvidenceFacts, evidence_facts
from rollout.reports.funnel import (
    FileRows,
    Funnel,
    RowExample,
    file_rows,
    funnels,
    set_aside_examples,
)
from rollout.reports.hindsight import Hindsight, Sighted, hindsights, sighted
from rollout.reports.identity import Identity, Rules, identity_of, promise, rules_of
from rollout.reports.inputs import Inputs
from rollout.reports.naive import NaiveOpening, naive_openings
from rollout.reports.oversight import Oversight, oversight
from rollout.reports.pairs import pair_up
from rollout.reports.paths import all_paths
from rollout.reports.people import Judged, judged
from rollout.reports.price import CellPrice, Price, cell_prices, price_of, priced_cases
from rollout.reports.stage_map import Panel, panels_of
from rollout.reports.stages import CellStages, stages_of
from rollout.reports.standing import standing
from rollout.reports.timeline_words import Happening, happenings
from rollout.reports.unlisted import Unlisted, unlisted_answers

SCHEMA = "rollout-report/1"


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a report says.

    Attributes:
        schema: name and version of this form; a field that is added keeps the version, one that
            is taken away or changes its meaning raises it.
        identity, rules, promises: what it is of, under which policy, and what that promises.
        files, examples: what became of the rows that were read, and some that were set aside.
        unlisted: answers that are none of the policy's labels, or out of its range.
        funnels: per version, where the cases went.
        agreements: per version and lever, record-level figures: they decide nothing.
        evidence: per cell and version, what decides.
        stages, calendar, timeline: what was allowed where and when, and what happened.
        price, prices: what it cost that the model decided, in all and by cell.
        hindsights, sighted: what somebody who saw every verdict would have known.
        naive: when plain rules would have opened each cell, for comparison.
        actions: what would be done otherwise, on the same cases.
        divergences: how many, and the dearest.
        people: reviewers, and how far they agree with each other.
        oversight: stops, incidents, and where nothing was heard.
    """

    schema: str
    identity: Identity
    rules: Rules
    promises: tuple[str, ...]
    files: tuple[FileRows, ...]
    examples: tuple[RowExample, ...]
    unlisted: tuple[Unlisted, ...]
    funnels: tuple[Funnel, ...]
    agreements: tuple[Agreement, ...]
    evidence: tuple[EvidenceFacts, ...]
    stages: tuple[CellStages, ...]
    calendar: tuple[Panel, ...]
    timeline: tuple[Happening, ...]
    price: Price
    prices: tuple[CellPrice, ...]
    hindsights: tuple[Hindsight, ...]
    sighted: tuple[Sighted, ...]
    naive: tuple[NaiveOpening, ...]
    actions: tuple[ActionChange, ...]
    divergences: Divergences
    people: Judged
    oversight: Oversight


def facts_of(inputs: Inputs) -> Facts:
    """Return the facts that follow from the inputs; the same inputs give the same facts."""
    pairs = pair_up(inputs.records, inputs.cases, inputs.policy)
    went = courses(inputs)
    priced = priced_cases(inputs, standing(inputs))
    return Facts(
        schema=SCHEMA,
        identity=identity_of(inputs),
        rules=rules_of(inputs.policy),
        promises=promise(inputs.policy),
        files=file_rows(inputs.records),
        examples=set_aside_examples(inputs.records),
        unlisted=unlisted_answers(inputs.records, inputs.policy),
        funnels=funnels(inputs, pairs.predicted),
        agreements=agreement_figures(pairs, inputs.records, inputs.policy),
        evidence=evidence_facts(inputs, went, all_paths(inputs, went)),
        stages=stages_of(inputs),
        calendar=panels_of(inputs),
        timeline=happenings(inputs),
        price=price_of(priced),
        prices=cell_prices(priced),
        hindsights=hindsights(inputs, went, priced),
        sighted=sighted(inputs),
        naive=naive_openings(inputs, pairs),
        actions=action_changes(pairs, inputs.policy),
        divergences=divergences_of(divergence_frame(pairs, inputs.policy)),
        people=judged(pairs, inputs.records, inputs.cases, inputs.policy),
        oversight=oversight(inputs),
    )
