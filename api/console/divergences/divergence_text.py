"""Text of the divergences page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from api.console.page.text import capitalize_first
from rollout.core.policy.levers import Lever
from rollout.reports.text import formatting
from rollout.services.divergences.divergence_figures import CostliestKind
from rollout.services.divergences.divergence_list import MAX_COMPARED_UNITS, DivergenceList
from rollout.services.engine.versions import WATCH, VersionStatus

CLEANING_PERMISSION_TEXT: Final = (
    "Only an operator at the case's site chooses what training does with it. An admin can grant "
    "that role."
)


@dataclass(frozen=True, slots=True)
class VersionChoice:
    """A version in the form with its status: `v7, acting`."""

    version: str
    text: str


def build_version_choices(statuses: Sequence[VersionStatus], selected: str) -> list[VersionChoice]:
    """Return the selectable versions, newest first, and the selected one."""
    choices = [
        VersionChoice(
            status.version, f"{_format_names(status)}, {_describe_version_status(status)}"
        )
        for status in statuses
    ]
    listed_versions = {status.version for status in statuses}
    extra_choices = (
        [VersionChoice(selected, selected)] if selected and selected not in listed_versions else []
    )
    return [*extra_choices, *reversed(choices)]


def _format_names(version: VersionStatus) -> str:
    newest = (version.version, *version.other_names)[-1]
    return newest if not version.other_names else f"{newest} (was {version.version})"


def _describe_version_status(version: VersionStatus) -> str:
    if version.retired:
        return "retired"
    if version.evidence == WATCH:
        return "watched"
    return "acting" if version.acting_cells else "in shadow"


def describe_divergences(divergences: DivergenceList) -> str:
    """Describe how many divergences there are and what they cost."""
    compared_text = (
        f"{formatting.format_quantity(divergences.compared, 'compared case')} from"
        f" {format_days(divergences)}"
    )
    if not divergences.count:
        return f"None of {compared_text} differs."
    verb = "differs" if divergences.count == 1 else "differ"
    how = ", " + _describe_action_share(divergences)
    if divergences.sides is not None:  # a number is its own action
        how = " by more than the tolerance"
    sentence = f"{formatting.format_count(divergences.count)} of {compared_text} {verb}{how}."
    if divergences.costliest_kind is None:
        return f"{sentence} They would cost nothing."
    return f"{sentence} {_describe_costliest(divergences, divergences.costliest_kind)}"


def format_days(divergences: DivergenceList) -> str:
    """Format the period in days of the policy's timezone: `16 Sep 2027 to 15 Oct 2027`."""
    timezone = divergences.policy.timezone
    last_instant = divergences.until - timedelta(microseconds=1)
    return (
        f"{formatting.format_day(divergences.since, timezone)} to"
        f" {formatting.format_day(last_instant, timezone)}"
    )


def describe_coverage(divergences: DivergenceList) -> str:
    """Describe which cases the list excludes and how far back it reaches."""
    text = (
        "A case is listed after it has closed and was counted. Reviewers may still decide open "
        "cases blind."
    )
    if not divergences.is_truncated:
        return text
    first_day = formatting.format_day(divergences.since, divergences.policy.timezone)
    return (
        f"{text} Only the newest {formatting.format_count(MAX_COMPARED_UNITS)} cases are searched,"
        f" here back to {first_day}; {formatting.format_count(divergences.compared)} of them have a"
        " blind decision and are compared. To see older cases, choose earlier days."
    )


def _describe_costliest(divergences: DivergenceList, costliest: CostliestKind) -> str:
    cost_unit = divergences.policy.charter.cost_in
    if divergences.count == 1:
        return (
            f"{capitalize_first(_describe_kind(divergences, costliest))}; it would cost"
            f" {format_cost(costliest.cost)} {cost_unit} if the human is right."
        )
    return (
        f"They would cost {format_cost(divergences.cost)} {cost_unit} if the humans are right in"
        " all of them. The costliest kind:"
        f" {_describe_kind(divergences, costliest)}"
        f" ({formatting.format_quantity(costliest.count, 'case')}, {format_cost(costliest.cost)}"
        f" {cost_unit})."
    )


def _describe_kind(divergences: DivergenceList, costliest: CostliestKind) -> str:
    if divergences.sides is not None:
        return f"numbers of {divergences.version} {costliest.model}"
    return f"human {costliest.human}, {divergences.version} {costliest.model}"


def _describe_action_share(divergences: DivergenceList) -> str:
    if divergences.action_count == divergences.count:
        return "also in the action" if divergences.count == 1 else "all of them also in the action"
    return f"{formatting.format_count(divergences.action_count)} of them also in the action"


def format_cost(value: float) -> str:
    """Format a cost without trailing zeros.

    >>> format_cost(20.0), format_cost(1234.5), format_cost(0.125)
    ('20', '1,234.5', '0.125')
    """
    return f"{value:,.3f}".rstrip("0").rstrip(".")


def format_unit(lever: Lever) -> str:
    """Return the unit of a number lever, with a space; "" for labels."""
    return "" if lever.number is None else f" {lever.number.unit}".rstrip()


def explain_empty_list(divergences: DivergenceList, *, is_narrowed: bool) -> str:
    """Explain why the list is empty and what to do next."""
    if not divergences.version:
        return (
            "No model version has sent predictions yet. Send cases, predictions and decisions; "
            "docs/how-to/records.md shows how."
        )
    if not divergences.compared:
        return (
            f"No case of {divergences.version} could be compared here. A case is compared once it"
            " has closed with a blind decision and the model's answer: choose earlier days or"
            " another site, or check Review for pending cases."
        )
    if is_narrowed:
        return f"No divergence of {divergences.version} matches. Remove a part of the filter."
    return (
        f"{divergences.version} and the reviewers gave the same answer to all "
        f"{formatting.format_quantity(divergences.compared, 'compared case')} of these days. "
        "Earlier days may differ."
    )
