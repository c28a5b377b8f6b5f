"""The section `waves` of a policy file."""

from rollout.formats.policy import fields as kinds
from rollout.formats.policy.sections import PolicySection, key


class WavesShape(PolicySection):
    """Which sites go next, and after what."""

    stage: kinds.Name = key(description="Stage that a wave must hold.", examples=["supervised"])
    hold: kinds.Duration = key(
        "7d", description="For how long it must hold it without a stop or suspension."
    )
    share: kinds.Share = key(
        "100%", description="Share of the wave's cells in the same window that must."
    )
    at_once: kinds.Ordinal | None = key(
        None, description="At most so many cells within settle of a widening. Default: all."
    )
    settle: kinds.Duration = key("3d", description="How long a widened cell counts as settling.")
    opens: dict[str, kinds.Day] = key(
        default_factory=dict,
        description="First local day of a wave, by its number. Default: as soon as it may.",
    )
