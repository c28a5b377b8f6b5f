"""One case explained: its assignment at the time, media and training choices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rollout.data.counting.period_records import PeriodRecords
from rollout.data.database.rollouts import PolicyTexts
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.case_pages import NewestRecords
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import IncomingCases
from rollout.data.reviews.reviews import CleaningStore
from rollout.engine.decide.assignment import CaseQuestion, decide_assignment
from rollout.engine.decide.permissions import Caller
from rollout.engine.decide.policy_changes import find_by_any_name
from rollout.engine.decide.scope import Scope, find_acting_version
from rollout.engine.records.records import Case
from rollout.engine.records.reviews import CleaningChoice, compute_due_time
from rollout.features.divergences.cases import CaseDetails, load_case_details
from rollout.kernel.calendar.sites import Cell
from rollout.kernel.policy.policy import Policy
from rollout.live.rollout_state import RolloutState, parse_stored_policy, read_rollout


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
    """A case with its assignment, media and training choices.

    Attributes:
        timezone: of the site; the policy's if it no longer has the site.
        closes_at: until when a decision counts as evidence.
        is_counted_by_episode: whether one case of an episode is counted, not each case.
        media: picture addresses by name.
        assignment: None if hidden, or if site and window were never a cell.
        choices: choices for training, oldest first.
    """

    case_details: CaseDetails
    timezone: str
    closes_at: datetime
    is_counted_by_episode: bool
    media: Mapping[str, str] = field(default_factory=dict)
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
        closes_at = compute_due_time(state.policy, case.occurred_at, case_details.case.received_at)
        is_visible = not case_details.hidden
        return ExplainedCase(
            case_details=case_details,
            timezone=state.policy.get_timezone(case.site),
            closes_at=closes_at,
            is_counted_by_episode=state.policy.evidence.unit == "episode",
            media=case.media,
            assignment=_reconstruct_assignment(
                transaction, state, case_details, case, closes_at, at
            )
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
    case: Case,
    closes_at: datetime,
    at: datetime,
) -> CaseAssignment | None:
    ledger = Ledger(transaction, state.rollout)
    case_id = ExternalKeys(transaction, state.rollout).find_ids([case.key])[case.key]
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
        sampling_value=draws.decider if closes_at <= at else None,
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
