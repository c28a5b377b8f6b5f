"""What the divergences say in a sentence, whose they are, and why somebody may not judge them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from rollout.core.policy.levers import Lever
from rollout.reports.text import formatting
from rollout.services.divergences.divergence_figures import Worst
from rollout.services.divergences.divergence_list import MANY, DivergenceList
from rollout.services.engine.versions import VersionStatus

WHO_JUDGES: Final = (
    "Only an operator at the case's site says what training does with it: what the next version "
    "learns is a decision about what it will do. An admin gives that right."
)


@dataclass(frozen=True, slots=True)
class VersionChoice:
    """A version in the form, with where it stands: `v7, acting`."""

    version: str
    says: str


def version_choices(known: Sequence[VersionStatus], chosen: str) -> list[VersionChoice]:
    """Return the versions that can be chosen, the newest first, and one that was named anyhow."""
    choices = [
        VersionChoice(status.version, f"{status.version}, {_stands(status)}") for status in known
    ]
    listed_versions = {status.version for status in known}
    extra_choices = (
        [VersionChoice(chosen, chosen)] if chosen and chosen not in listed_versions else []
    )
    return [*extra_choices, *reversed(choices)]


def _stands(version: VersionStatus) -> str:
    if version.retired:
        return "retired"
    return "acting" if version.acting_cells else "in shadow"


def lede(found: DivergenceList) -> str:
    """Say how many divergences there are and what they cost, in a sentence or two."""
    compared_text = f"{formatting.several(found.compared, 'compared case')} from {days(found)}"
    if not found.count:
        return f"Of {compared_text} none differs so."
    verb = "differs" if found.count == 1 else "differ"
    sentence = f"{formatting.number(found.count)} of {compared_text} {verb}, {_in_action(found)}."
    if found.worst is None:
        return f"{sentence} They cost nothing."
    return f"{sentence} {_worst(found, found.worst)}"


def days(found: DivergenceList) -> str:
    """Say the span, in days of the policy's zone: `16 Sep 2027 to 15 Oct 2027`."""
    timezone, last_instant = found.policy.timezone, found.until - timedelta(microseconds=1)
    return (
        f"{formatting.day_text(found.since, timezone)} to"
        f" {formatting.day_text(last_instant, timezone)}"
    )


def reach(found: DivergenceList) -> str:
    """Say what is left out of the list and its figures, and how far back they reach."""
    text = (
        "Open cases are left out: those that people may still judge without the model's answer. "
        "A case is here once it has closed and was counted."
    )
    if not found.cut:
        return text
    first_day = formatting.day_text(found.since, found.policy.timezone)
    return (
        f"{text} Only the newest are looked at, {formatting.number(MANY)} at most: "
        f"here back to {first_day}. "
        "For earlier ones choose earlier days."
    )


def _worst(found: DivergenceList, worst: Worst) -> str:
    cost_unit, answer_text = (
        found.policy.charter.cost_in,
        f"where {found.version} said {worst.model}",
    )
    if found.count == 1:
        return f"It was {worst.human} {answer_text}, and cost {cost(worst.cost)} {cost_unit}."
    verb = "was" if worst.count == 1 else "were"
    return (
        f"Together they cost {cost(found.cost)} {cost_unit}: {formatting.number(worst.count)}"
        f" {verb} {worst.human} {answer_text}, and cost {cost(worst.cost)} of it."
    )


def _in_action(found: DivergenceList) -> str:
    if found.in_action == found.count:
        return "in what is done too" if found.count == 1 else "all of them in what is done too"
    return f"{formatting.number(found.in_action)} of them in what is done"


def cost(value: float) -> str:
    """Say a cost without needless digits.

    >>> cost(20.0), cost(1234.5), cost(0.125)
    ('20', '1,234.5', '0.125')
    """
    return f"{value:,.3f}".rstrip("0").rstrip(".")


def unit_of(lever: Lever) -> str:
    """Return what stands behind an answer of a lever with numbers; "" for labels."""
    return "" if lever.number is None else f" {lever.number.unit}".rstrip()


def nothing_says(found: DivergenceList, *, narrowed: bool) -> str:
    """Say why a list is empty and what to do next."""
    if not found.version:
        return (
            "No version of a model was ever heard of here. Send cases with its predictions and "
            "people's verdicts; docs/api.md says how."
        )
    if not found.compared:
        return (
            f"No case of {found.version} could be compared here. A case is compared once it has "
            "closed and a blind verdict of people stands beside the model's answer: choose "
            "earlier days or another place, or see whether verdicts wait in Review."
        )
    if narrowed:
        return f"No divergence of {found.version} is like this. Take a part of the filter away."
    return (
        f"{found.version} and people gave the same answer to all "
        f"{formatting.several(found.compared, 'compared case')} of these days. "
        "Earlier days may differ."
    )
