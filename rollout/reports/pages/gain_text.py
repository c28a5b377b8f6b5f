"""What the model brought, in sentences and amounts."""

from rollout.core.policy.outcomes import PROPOSES
from rollout.reports.figures.gains import GainFacts
from rollout.reports.text.formatting import (
    format_cell_name,
    format_decimal,
    format_quantity,
    format_signed,
)


def describe_gain(gain: GainFacts) -> str:
    """Return what a version brought in a cell, with its interval and both arms."""
    cell = format_cell_name(gain.site, gain.window)
    verb = "its proposals brought" if gain.arm == PROPOSES else "the model brought"
    if gain.gain is None:
        arms = format_quantity(gain.model_units + gain.people_units, "unit")
        return f"{cell}, {gain.version}: no {gain.outcome} to compare yet, {arms} with a value."
    return (
        f"{cell}, {gain.version}: {verb} {format_amount(gain.gain, gain.unit)} of {gain.outcome} a"
        f" unit ({format_gain_interval(gain)} at every look, 95 %): {describe_arms(gain)}"
    )


def describe_arms(gain: GainFacts) -> str:
    """Return both arms' means, and why their difference isn't the gain where it isn't."""
    text = (
        f"{format_decimal(gain.model_mean, 2)} in the model's arm"
        f" ({format_quantity(gain.model_units, 'unit')}),"
        f" {format_decimal(gain.people_mean, 2)} in the humans'"
        f" ({format_quantity(gain.people_units, 'unit')}), sampled at random."
    )
    if gain.has_one_share:
        return text
    return f"{text} The model's share changed: the gain compares units of the same share."


def format_amount(value: float, unit: str) -> str:
    """Format an amount with its sign and unit."""
    return f"{format_signed(value, 2)} {unit}".rstrip()


def format_gain_interval(gain: GainFacts) -> str:
    """Format the interval of a gain."""
    return f"{format_signed(gain.lower, 2)} to {format_signed(gain.upper, 2)}"
