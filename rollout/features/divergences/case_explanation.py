"""One case explained, and the cases with the largest losses.

A case is explained by its assignment at the time and training choices.

The largest losses of counted pairs come from an index: `rollout.data.counting.top_losses` stores
each differing pair with the version's confidence. The costs come from the current policy. Cases
that may still be decided blind are excluded.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from heapq import merge
from itertools import islice
from typing import Final

import polars as pl

from rollout.data.counting.closed_units import PeriodRecords
from rollout.data.counting.top_losses import (
    CellDivergences,
    CountedDivergence,
    DivergenceClass,
    StoredLosses,
)
from rollout.data.database.rollouts import PolicyTexts
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.case_pages import NewestRecords
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.history import StoredHistory
from rollout.data.records.incoming_cases import IncomingCases
from rollout.data.reviews.reviews import CleaningStore
from rollout.engine.decide.assignment import CaseQuestion, decide_assignment
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.decide.policy_changes import find_by_any_name
from rollout.engine.decide.scope import Scope, find_acting_version
from rollout.engine.evidence.case_placement import place_cases
from rollout.engine.records.records import Case, Decision, Prediction
from rollout.engine.records.reviews import (
    HUMANS_DISAGREE,
    MAX_LISTED,
    CleaningChoice,
    compute_due_time,
    find_final_choices,
)
from rollout.features.divergences.cases import CaseDetails, load_case_details
from rollout.features.reports.figures.label_issues import LabelIssue
from rollout.features.reports.inputs.divergence_columns import Loss
from rollout.features.reports.inputs.losses import build_losses, compute_surprise
from rollout.features.reports.inputs.pairs import compare_answers
from rollout.features.reviews.decisions import find_hidden_cases, record_shown_cases
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.errors import UnknownVersionError
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import Lever
from rollout.live.rollout_state import RolloutState, parse_stored_policy, read_rollout
from rollout.live.service import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseAssignment:
    """The assignment of a case, reconstructed from the ledger.

    Attributes:
        revision: ledger revision of the recorded answer, else the last before the case occurred.
        is_recorded: whether an action or prediction carried that revision.
        version: acting version; "" in shadow.
        decider: `human` or `model`.
        exposure: `blind` or `assisted`, for a human who decides or audits.
        is_audited: whether a blind decision was requested afterwards.
        share: share of units with the same assignment.
        sampling_value: of the case's unit; None while the case is open.
    """

    revision: int
    is_recorded: bool
    version: str
    stage: str
    decider: str
    exposure: str
    is_audited: bool
    share: float
    sampling_value: float | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedCase:
    """A case with its assignment and training choices.

    Attributes:
        timezone: of the site; the policy's if it no longer has the site.
        is_counted_by_episode: whether one case of an episode is counted, not each case.
        assignment: None if hidden, or if site and window were never a cell.
        choices: choices for training, oldest first.
    """

    case_details: CaseDetails
    timezone: str
    is_counted_by_episode: bool
    assignment: CaseAssignment | None = None
    choices: Sequence[CleaningChoice] = ()


def load_case_explanation(
    database: Database, caller: Caller, rollout_name: str, key: str, at: datetime
) -> ExplainedCase:
    """Return everything about a case that the caller may see.

    Exposure is recorded first.

    Raises:
        UnknownCaseError: the caller may not see such a case.
        UnknownRolloutError: the caller may not see such a rollout.
        NotAllowedError: the caller may not read cases.
        StaleRevisionError: the caller claimed the case meanwhile; repeat the request.
    """
    case_details = load_case_details(database, caller, rollout_name, key, at)
    with read_rollout(database, rollout_name) as (transaction, state):
        case_id = ExternalKeys(transaction, state.rollout).find_ids([key])[key]
        case = NewestRecords(transaction, state.rollout).load_cases([case_id])[case_id]
        is_visible = not case_details.hidden
        return ExplainedCase(
            case_details=case_details,
            timezone=state.policy.get_timezone(case.site),
            is_counted_by_episode=state.policy.evidence.unit == "episode",
            assignment=_reconstruct_assignment(transaction, state, case_details, case_id, case, at)
            if is_visible
            else None,
            choices=_load_choices(transaction, state, case_id, at) if is_visible else (),
        )


def _load_choices(
    transaction: Transaction, state: RolloutState, case_id: int, at: datetime
) -> Sequence[CleaningChoice]:
    """Return the training choices, unless the case is an open gold case."""
    if case_id in PeriodRecords(transaction, state.rollout).list_blind_cases(at):
        return ()
    return CleaningStore(transaction, state.rollout).list_for_cases([case_id])


def _reconstruct_assignment(
    transaction: Transaction,
    state: RolloutState,
    case_details: CaseDetails,
    case_id: int,
    case: Case,
    at: datetime,
) -> CaseAssignment | None:
    ledger = Ledger(transaction, state.rollout)
    samples = IncomingCases(transaction, state.rollout).load_draws([case_id])
    recorded_revision = _find_recorded_revision(case_details)
    revision = (
        ledger.find_revision_at(case.occurred_at)
        if recorded_revision is None
        else recorded_revision
    )
    scope = ledger.load_scope_of_revision(min(revision, state.scope.revision))
    policy = _load_policy_in_force(transaction, state, scope)
    if policy is None or case.site not in policy.sites_by_id:
        return None
    acting_grant = find_acting_version(
        scope, policy, Cell(case.site, case.window), case.occurred_at
    )
    version = "" if acting_grant is None else acting_grant[0]
    predictions = {item.version: item for item in case_details.predictions}
    prediction = find_by_any_name(scope, version, predictions)
    question = CaseQuestion(
        site=case.site,
        at=case.occurred_at,
        version=version or "-",  # any version other than the acting one means shadow
        key=case.key,
        episode=case.episode or "",
        confidence=None if prediction is None else prediction.confidence,
        attributes=case.attributes,
        is_drawn=state.find_draw(samples.get(case_id, {}), version),
    )
    assignment = decide_assignment(
        scope, policy, state.rollout.salt, question, now=case.occurred_at
    )
    draws = state.draw_case_values(policy, case)
    is_audited = False
    if assignment.decider == "model":
        stage = policy.get_stage(policy.stage_ids.index(assignment.stage))
        is_audited = draws.audit < (stage.audit or 0.0)
    return CaseAssignment(
        revision=revision,
        is_recorded=recorded_revision is not None,
        version=version,
        stage=assignment.stage,
        decider=assignment.decider,
        exposure=assignment.exposure,
        is_audited=is_audited,
        share=assignment.share,
        sampling_value=draws.decider if case_details.case.closes_at <= at else None,
        reason=assignment.reason,
    )


def _find_recorded_revision(case_details: CaseDetails) -> int | None:
    """Return the revision that an action or prediction carried, or None."""
    action_revisions = (record.scope_revision for record in case_details.actions)
    prediction_revisions = (record.scope_revision for record in case_details.predictions)
    return next(
        (record for record in (*action_revisions, *prediction_revisions) if record is not None),
        None,
    )


def _load_policy_in_force(
    transaction: Transaction, state: RolloutState, scope: Scope
) -> Policy | None:
    """Return the policy in force, or None before the first."""
    if scope.policy_hash == state.scope.policy_hash:
        return state.policy
    if not scope.policy_hash:
        return None
    texts = PolicyTexts(transaction, state.rollout).load_texts({scope.policy_hash})
    return parse_stored_policy(texts[scope.policy_hash])


PROPOSAL_PAGE: Final = "proposal"
MAX_SEARCHED_CASES: Final = (
    50  # costliest cases searched: some may be purged or hidden from the caller
)


@dataclass(frozen=True, slots=True)
class AnswerDifference:
    """Human and model answer on a lever with their actions; "" if missing."""

    lever: str
    human: str
    model: str
    human_action: str
    model_action: str


@dataclass(frozen=True, slots=True)
class CostliestDivergence:
    """A divergent case; `cost` in the charter's unit, `note` by the reviewer."""

    key: str
    occurred_at: datetime
    differences: tuple[AnswerDifference, ...]
    confidence: float | None
    cost: float
    note: str
    attributes: Mapping[str, str]
    media: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CostliestDivergences:
    """The costliest cases, with the numbers of all and of hidden divergences."""

    items: tuple[CostliestDivergence, ...]
    count: int
    withheld_cases: int


def load_costliest_divergences(
    service: Service, caller: Caller, rollout_name: str, cell: Cell, version: str, *, at: datetime,
    limit: int = 5,
) -> CostliestDivergences:  # fmt: skip
    """Return the costliest divergences of the current attempt.

    Records the exposure. Cases that the caller may still decide blind are excluded, whatever other
    roles the caller has. Unknown versions have no divergences.

    Raises:
        NotAllowedError: the caller may not read cases of the site.
        StaleRevisionError: the caller claimed one of the cases meanwhile; repeat the request.
    """
    state = service.load_permitted_state(caller, Permission.READ_CASES, rollout_name, (cell.site,))
    version = state.scope.get_first_name(version)
    if version not in state.scope.versions:
        return CostliestDivergences((), 0, 0)
    with service.database.begin_read() as transaction:
        divergences = _find_costliest_divergences(
            transaction, state, caller, cell, version, at, limit
        )
    keys = [item.key for item in divergences.items]
    record_shown_cases(service.database, state, caller, keys, at, page=PROPOSAL_PAGE)
    return divergences


def _find_costliest_divergences(
    transaction: Transaction, state: RolloutState, caller: Caller, cell: Cell, version: str,
    at: datetime, limit: int,
) -> CostliestDivergences:  # fmt: skip
    attempt = state.scope.get_cell_state(cell, version).attempt
    divergence_store = CellDivergences(transaction, state.rollout, cell, version, attempt)
    whole_unit_lever = state.policy.whole_unit_lever
    costliest = divergence_store.list_costliest(whole_unit_lever, max(limit, MAX_SEARCHED_CASES))
    newest = NewestRecords(transaction, state.rollout)
    case_ids = [divergence.case_id for divergence in costliest]
    cases = newest.load_cases(case_ids)
    predictions = newest.load_predictions(case_ids)
    decisions = newest.load_decisions(case_ids)
    own_predictions = {
        case_id: prediction
        for case_id, by_name in predictions.items()
        if (prediction := find_by_any_name(state.scope, version, by_name)) is not None
    }
    existing = [
        divergence
        for divergence in costliest
        if divergence.case_id in own_predictions and divergence.case_id in cases
    ]
    keys = [cases[divergence.case_id].key for divergence in existing]
    hidden_keys = find_hidden_cases(transaction, state, caller, keys, at)
    visible = [
        divergence for divergence in existing if cases[divergence.case_id].key not in hidden_keys
    ]
    items = (
        _build_divergence(state.policy, divergence, cases[divergence.case_id],
               own_predictions[divergence.case_id],
               decisions.get(divergence.case_id, {}).get(divergence.reviewer))
        for divergence in visible[:limit]
    )  # fmt: skip
    return CostliestDivergences(
        tuple(items), divergence_store.count_units(whole_unit_lever), len(hidden_keys)
    )


def _build_divergence(
    policy: Policy,
    divergence: CountedDivergence,
    case: Case,
    prediction: Prediction,
    decision: Decision | None,
) -> CostliestDivergence:
    levels = policy.cost_levels
    return CostliestDivergence(
        key=case.key,
        occurred_at=case.occurred_at,
        differences=tuple(_list_differences(policy.levers, prediction, decision)),
        confidence=prediction.confidence,
        cost=levels[min(divergence.level, len(levels) - 1)],
        note=(decision.note or "") if decision is not None else "",
        attributes=case.attributes,
        media=case.media,
    )


def _list_differences(
    levers: Sequence[Lever], prediction: Prediction, decision: Decision | None
) -> Iterator[AnswerDifference]:
    """Yield the levers whose answers differ in their text."""
    for lever in levers:
        human_answer = ("" if decision is None else decision.answers.get(lever.id)) or ""
        model_answer = prediction.answers.get(lever.id) or ""
        if model_answer != human_answer:
            model_action = lever.find_action(model_answer) or ""
            human_action = lever.find_action(human_answer) or ""
            yield AnswerDifference(lever.id, human_answer, model_answer, human_action, model_action)


@dataclass(frozen=True, slots=True)
class _CountedPair:
    """A counted pair with different answers."""

    case_id: int
    version: str
    lever: str
    human: str
    model: str
    confidence: float
    loss: float
    cost: float


def load_costliest_counted_pairs(
    database: Database,
    caller: Caller,
    rollout_name: str,
    at: datetime,
    *,
    version: str | None = None,
    has_choice: bool | None = None,
    limit: int = MAX_LISTED,
) -> Sequence[LabelIssue]:
    """Return the counted pairs with the largest cost times loss.

    Includes sites that the caller may read. A pair is the first blind decision of an evidence unit
    with
    the prediction, under all policies so far, at the cost of the current policy. Levers with
    numbers
    are excluded because their costs are not stored. The index is searched over all sites, so
    callers
    with few sites wait longer.

    Args:
        version: by default all.
        has_choice: with (True) or without (False) a training choice; None for both.

    Raises:
        NotAllowedError: the caller may not read the rollout.
        UnknownRolloutError: the caller may not see such a rollout.
        UnknownVersionError: the rollout has no such version.
    """
    require_permission(caller, Permission.READ, rollout_name)
    with read_rollout(database, rollout_name) as (transaction, state):
        version = None if version is None else state.scope.get_first_name(version)
        if version is not None and version not in state.scope.versions:
            raise UnknownVersionError(f"no version {version} was seen in {rollout_name}")
        versions = sorted(state.scope.versions) if version is None else [version]
        is_readable = partial(caller.has_permission, Permission.READ, rollout_name)
        pairs = _iterate_costliest_pairs(transaction, state, versions, is_readable, limit)
        visible_pairs = _iterate_visible_pairs(transaction, state, pairs, at, is_readable, limit)
        matching_pairs = (
            item for item in visible_pairs if has_choice in {None, item[2] is not None}
        )
        selected_pairs = list(islice(matching_pairs, limit))
        losses = _build_losses(transaction, state, {pair: key for pair, key, _ in selected_pairs})
    choices = (choice for *_, choice in selected_pairs)
    return [LabelIssue(loss, choice) for loss, choice in zip(losses, choices, strict=True)]


def _iterate_costliest_pairs(
    transaction: Transaction,
    state: RolloutState,
    versions: Iterable[str],
    is_readable: Callable[[str], bool],
    batch_size: int,
) -> Iterator[_CountedPair]:
    """Yield pairs by cost, then confidence, then submission, all descending."""
    losses = StoredLosses(transaction, state.rollout, state.first_names)
    levers = {lever.id: lever for lever in state.policy.levers if lever.has_single_labels}

    def iterate_class(
        version: str, series: Collection[int] | None, class_id: int, answer_class: DivergenceClass
    ) -> Iterator[_CountedPair]:
        *_, cost = compare_answers(
            levers[answer_class.lever], answer_class.human, answer_class.model
        )
        for case_id, confidence in losses.list_most_confident(
            version, class_id, at_once=batch_size, series=series
        ):
            yield _CountedPair(
                case_id=case_id,
                version=version,
                lever=answer_class.lever,
                human=answer_class.human,
                model=answer_class.model,
                confidence=confidence,
                loss=compute_surprise(confidence),
                cost=cost,
            )

    classes = losses.load_classes().items()
    streams = (
        iterate_class(version, series, class_id, answer_class)
        for version in versions
        for series in [_find_readable_series(losses.load_sites(version), is_readable)]
        for class_id, answer_class in classes
        if answer_class.lever in levers
    )
    listed_keys = set()  # two policies may count a case as a unit and in an episode
    for pair in merge(*streams, key=lambda p: (-p.cost * p.loss, -p.confidence, -p.case_id)):
        if (pair_key := (pair.case_id, pair.version, pair.lever)) not in listed_keys:
            listed_keys.add(pair_key)
            yield pair


def _find_readable_series(
    sites: Mapping[int, str], is_readable: Callable[[str], bool]
) -> Collection[int] | None:
    """Return the readable series; None if all sites are readable."""
    readable_series = [series_id for series_id, site in sites.items() if is_readable(site)]
    return None if len(readable_series) == len(sites) else readable_series


def _iterate_visible_pairs(
    transaction: Transaction,
    state: RolloutState,
    pairs: Iterator[_CountedPair],
    at: datetime,
    is_readable: Callable[[str], bool],
    batch_size: int,
) -> Iterator[tuple[_CountedPair, str, CleaningChoice | None]]:
    """Yield the visible pairs with case key and training choice.

    A case is closed by the grace of the current policy.
    """
    blind_case_ids = PeriodRecords(transaction, state.rollout).list_blind_cases(at)
    newest = NewestRecords(transaction, state.rollout)
    cleanings = CleaningStore(transaction, state.rollout)
    while batch := list(islice(pairs, batch_size)):
        case_ids = {pair.case_id for pair in batch} - blind_case_ids
        cases, received_times = newest.load_cases(case_ids), newest.load_received_times(case_ids)
        current_choices = find_final_choices(cleanings.list_for_cases(case_ids))
        for pair in batch:
            case = cases.get(pair.case_id)
            if case is None or not is_readable(case.site):
                continue
            if compute_due_time(state.policy, case.occurred_at, received_times[pair.case_id]) <= at:
                yield pair, case.key, current_choices.get((case.key, pair.lever))


def _build_losses(
    transaction: Transaction, state: RolloutState, keys_by_pair: Mapping[_CountedPair, str]
) -> Sequence[Loss]:
    """Return the pairs with the current facts of their cases."""
    case_ids = {pair.case_id for pair in keys_by_pair}
    attribute_names = PeriodRecords(transaction, state.rollout).list_attributes(case_ids)
    levers = [lever.id for lever in state.policy.levers]
    store = StoredHistory(
        transaction,
        state.rollout,
        levers=levers,
        attributes=attribute_names,
        first_names=state.first_names,
    )
    records = store.load_records(case_ids)
    placement = place_cases(records, state.policy, state.rollout.salt)
    rows = [
        {**asdict(pair), "case_key": key, "kind": HUMANS_DISAGREE}
        for pair, key in keys_by_pair.items()
    ]
    return build_losses(pl.DataFrame(rows), records, placement.cases) if rows else ()
