"""Reports of form 1 as values of form 2, which has other names for many fields.

A stored report keeps its text, since its seal covers it. It is translated whenever a page is made
of it, or a newer version is compared with it.
"""

import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from rollout.reports.figures.facts import SCHEMA, ReportFacts

FORM_1: Final = "rollout-report/1"

NEW_NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    "ReportFacts": {
        "rules": "policy",
        "unlisted": "unknown_labels",
        "examples": "rejected_examples",
        "price": "model_cost",
        "prices": "cell_model_costs",
        "sighted": "visible_agreements",
        "naive": "naive_openings",
        "people": "reviewer_agreement",
        "health": "review_quality",
        "drifts": "drift",
        "desk": "pending_work",
        "edition": "report_version",
        "numbers": "number_agreements",
        "baselines": "baseline_changes",
        "timeline": "events",
        "unfamiliar": "unfamiliar_cases",
        "feedback": "feedback_loops",
    },
    "PolicySummary": {
        "ladder": "stage_descriptions",
        "verdicts_from_outside": "external_decisions",
    },
    "UnknownLabels": {
        "by": "side",
        "joined_otherwise": "other_separators",
    },
    "FunnelStep": {
        "left": "remaining",
    },
    "Anchoring": {
        "unseen": "blind",
        "seen": "assisted",
        "says": "summary",
    },
    "Correctness": {
        "against": "reference",
        "known": "known_cases",
        "people": "human",
        "model_beside": "model_on_same_cases",
    },
    "CellSampling": {
        "off_plan": "differs_from_plan",
        "outside": "unsampled_decisions",
    },
    "SampledAgreement": {
        "naive": "unweighted",
    },
    "HoldoutActions": {
        "people_cases": "human_cases",
    },
    "HoldoutActionChange": {
        "by_people": "by_human",
    },
    "BaselineChange": {
        "who": "side",
        "then_n": "baseline_n",
        "now_n": "current_n",
    },
    "BaselineActionChange": {
        "then": "baseline",
        "now": "current",
        "then_share": "baseline_share",
        "now_share": "current_share",
    },
    "EvidenceFacts": {
        "decides_next": "next_step",
        "closed": "closed_units",
        "judged": "decided_units",
        "missing": "undecided_units",
        "per_day": "decided_units_per_day",
    },
    "GateFacts": {
        "lacks": "missing",
        "approvals": "required_approvals",
    },
    "ConditionFacts": {
        "line": "threshold",
        "further": "records_needed_min",
        "below": "probability_below",
        "median": "records_needed_p50",
        "ninety": "records_needed_p90",
        "needed": "log_e_needed",
    },
    "EvidenceSeries": {
        "line": "threshold",
    },
    "EventDescription": {
        "brief": "short_text",
    },
    "ModelCost": {
        "known": "known_cases",
        "people_known": "human_known_cases",
        "people_wrong": "human_wrong",
        "people_wrong_action": "human_wrong_action",
        "people_cost": "human_cost",
    },
    "CellModelCost": {
        "price": "cost",
    },
    "Hindsight": {
        "came_from": "from_stage",
        "to": "to_stage",
        "shown": "sampled_bad_records",
        "all": "all_bad_records",
        "price": "cost",
        "price_if_seen": "cost_if_seen",
    },
    "VisibleAgreement": {
        "shown": "sampled",
    },
    "NaiveOpening": {
        "after": "decided_cases",
        "engine_at": "engine_opened_at",
        "people_wrong": "human_wrong",
    },
    "ActionFrequencyChange": {
        "by_people": "by_human",
    },
    "DivergenceFigures": {
        "people_right": "human_right",
    },
    "Divergence": {
        "local": "local_time",
        "about": "attributes",
    },
    "Reviewer": {
        "name": "reviewer",
        "verdicts": "answers",
        "stands_out": "clearly_below_in",
    },
    "HumanCeiling": {
        "people": "reviewers",
    },
    "RaterAgreement": {
        "verdicts": "decisions",
    },
    "ReviewQuality": {
        "asked": "required_agreement",
        "floor": "hasty_below",
        "people": "reviewers",
    },
    "ReviewerHabits": {
        "name": "reviewer",
        "spent": "decision_time",
        "run": "answer_run",
        "known": "gold_cases",
        "settled": "adjudicated",
        "relied": "reliability",
        "signs": "warnings",
    },
    "Calibration": {
        "against": "reference",
        "said": "missing_data",
        "without": "without_confidence",
        "line": "largest_risk",
        "at_line": "at_threshold",
    },
    "SliceSearch": {
        "looked_at": "tested_slices",
        "smallest": "min_units",
        "said": "error_rate_text",
        "compared": "compared_attributes",
        "found": "slices",
    },
    "DivergentSlice": {
        "words": "summary",
        "also": "same_units_as",
        "people_right": "human_right",
        "follows": "wrong_side",
    },
    "DriftFigures": {
        "said": "summary",
        "found": "changes",
        "unseen": "new_values",
    },
    "Drift": {
        "thing": "feature",
        "words": "summary",
    },
    "NewValue": {
        "of": "cases_since",
        "at": "first_seen_at",
        "words": "summary",
    },
    "Latency": {
        "asked": "predictions",
    },
    "LossFigures": {
        "said": "missing_data",
        "sure_from": "confidence_thresholds",
    },
    "Loss": {
        "about": "attributes",
    },
    "PendingWork": {
        "heard": "site_activities",
    },
    "SiteActivity": {
        "last": "last_activity_at",
    },
    "FeedbackLoop": {
        "charter": "stated_effect",
        "fed": "model_label_share",
        "by_hand": "outcome_label_share",
        "held": "holdout_units",
        "with_model": "model_units",
        "without": "untested_units",
        "shares": "holdout_shares",
        "as_drawn": "has_planned_size",
        "known": "outcomes",
        "log_e_known": "log_e_outcomes",
        "feeds": "is_shown",
        "says": "summary",
        "needed": "log_e_needed",
    },
    "OutcomeComparison": {
        "held": "holdout",
    },
    "CleaningFigures": {
        "known": "has_choices",
    },
    "CleaningEffect": {
        "to_model": "relabelled_to_model",
    },
    "IncidentFacts": {
        "did": "effect",
    },
    "ReportVersion": {
        "settled_until": "counted_until",
        "waiting": "uncounted_units",
        "kept_back": "withheld_cases",
    },
    "GainFacts": {
        "people_units": "human_units",
        "people_missing": "human_missing",
        "people_mean": "human_mean",
    },
    "MethodOutcome": {
        "price": "model_cost",
    },
    "FloorEvidence": {
        "needed": "log_e_needed",
        "missing": "undecided_units",
    },
}
"""By class of the facts, the fields of form 1 that have another name in form 2."""

NEW_VALUES: Final[Mapping[tuple[str, str], Mapping[str, str]]] = {
    ("BaselineChange", "side"): {"people": "human", "done": "taken"},
    ("Calibration", "reference"): {"people": "human", "outcomes": "outcome"},
    ("UnknownLabels", "side"): {"people": "human"},
}
"""By class and field of form 2, the values that have another name in it."""


class UnknownReportFormError(ValueError):
    """A report has a form that this program doesn't know, as one of a later program."""


def translate_report(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a report of any form as one of the newest form.

    Raises:
        UnknownReportFormError: its fields may mean something else than those of the same names.

    >>> translate_report({"schema": "rollout-report/1", "desk": {"heard": []}})
    {'schema': 'rollout-report/2', 'pending_work': {'site_activities': []}}
    """
    if report.get("schema") == SCHEMA:
        return report
    if report.get("schema") != FORM_1:
        raise UnknownReportFormError(
            f"its form {report.get('schema')!r} is not {FORM_1} or {SCHEMA}"
        )
    return {**_translate(report, ReportFacts), "schema": SCHEMA}


def _translate(value: Any, kind: Any) -> Any:
    """Return a value of this type with the names of form 2."""
    if isinstance(value, list):
        return [_translate(item, _find_item_type(kind)) for item in value]
    if not isinstance(value, Mapping) or not isinstance(kind, type):
        return value
    name, types_by_field = kind.__name__, _list_field_types(kind)
    new_names, fields = NEW_NAMES.get(name, {}), {}
    for old_field, item in value.items():
        field = new_names.get(old_field, old_field)
        new_values = NEW_VALUES.get((name, field), {})
        is_renamed = isinstance(item, str) and item in new_values
        fields[field] = (
            new_values[item] if is_renamed else _translate(item, types_by_field.get(field))
        )
    return fields


@cache
def _list_field_types(kind: type) -> Mapping[str, Any]:
    """Return the type of each field, of an optional one without None."""
    return {name: _leave_out_none(hint) for name, hint in typing.get_type_hints(kind).items()}


def _leave_out_none(hint: Any) -> Any:
    if not isinstance(hint, types.UnionType):
        return hint
    others = [item for item in typing.get_args(hint) if item is not types.NoneType]
    return others[0] if len(others) == 1 else None


def _find_item_type(kind: Any) -> Any:
    arguments = typing.get_args(kind)
    return arguments[0] if arguments else None
