"""What the model brought, in sentences and amounts."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from rollout.kernel.outcomes import PROPOSES
from rollout.reports.figures.audit_cost import VisibleAgreement
from rollout.reports.figures.gains import GainFacts
from rollout.reports.text.formatting import (
    format_cell_name,
    format_count,
    format_decimal,
    format_percent,
    format_quantity,
    format_signed,
)


def describe_gain(gain: GainFacts) -> str:
    """Return what a version brought in a cell, with its interval and both arms."""
    cell = format_cell_name(gain.site, gain.window)
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
    def outcome(self) -> str: ...  # noqa: D102
    @property
    def gain(self) -> float | None: ...  # noqa: D102
    @property
    def lower(self) -> float: ...  # noqa: D102
    @property
    def upper(self) -> float: ...  # noqa: D102


def summarize_gains(gains: Iterable[MeasuredGain]) -> Iterator[str]:
    """Yield for each outcome in how many comparisons the model surely brought more, or less."""
    compared: dict[str, list[MeasuredGain]] = {}
    for gain in gains:
        compared.setdefault(gain.outcome, []).extend([gain] if gain.gain is not None else [])
    for outcome, rows in compared.items():
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
    shares = {(item.site, item.window, item.version): item.all for item in agreements}
    for gain in sorted(gains, key=lambda gain: gain.upper >= 0):
        share = shares.get((gain.site, gain.window, gain.version))
        if share is None or share.rate is None:
            continue
        mostly_agrees = share.rate > 0.5
        if gain.upper < 0 if mostly_agrees else gain.lower > 0:
            yield (
                f"{format_cell_name(gain.site, gain.window)}, {gain.version}: agreement and"
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
    text = ""
    if gain.without_arm:
        units = format_quantity(gain.without_arm, "more unit")
        text = f" {units} in no arm: more than chance decided."
    for reason, count in gain.missing_reasons.items():
        text += f" The {gain.outcome} of {format_quantity(count, 'unit')} doesn't count: {reason}."
    return text


def format_amount(value: float, unit: str) -> str:
    """Format an amount with its sign and unit."""
    return f"{format_signed(value, 2)} {unit}".rstrip()


def format_gain_interval(gain: GainFacts) -> str:
    """Format the interval of a gain."""
    return f"{format_signed(gain.lower, 2)} to {format_signed(gain.upper, 2)}"
