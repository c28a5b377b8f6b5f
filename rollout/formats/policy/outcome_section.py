"""The section `outcomes` of a policy file."""

from typing import Literal

from rollout.formats.policy import fields as kinds
from rollout.formats.policy.sections import PolicySection, key


class OutcomeShape(PolicySection):
    """A value that becomes known after a case, such as its profit."""

    id: kinds.Name = key(description="Name, as records write it.", examples=["profit"])
    low: kinds.Number = key(
        alias="from", description="Lower end; a lower value counts as this.", examples=["-20"]
    )
    high: kinds.Number = key(
        alias="to", description="Upper end; a higher value counts as this.", examples=["60"]
    )
    unit: kinds.NonEmptyText | None = key(
        None, alias="in", description="Unit of the value, such as EUR."
    )
    better: Literal["more", "less"] = key(
        "more", description="Whether more or less is better. With `less` a decrease is a gain."
    )
    closes: kinds.PositiveDuration = key(
        description="How long after a case its value may arrive; then it is missing.",
        examples=["14d"],
    )
    missing_at_most: kinds.Share = key(
        "2%", description="A larger share of units without a value holds gates on its gain."
    )
