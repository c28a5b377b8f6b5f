"""The section `stages` of a policy file."""

from rollout.formats.policy import fields as kinds
from rollout.formats.policy.sections import PolicySection, key


class StageShape(PolicySection):
    """A stage above shadow."""

    id: kinds.Name = key(description="Name of the stage.", examples=["supervised"])
    blind: kinds.Share = key("0%", description="Share of units that humans decide blind.")
    audit: kinds.Share | None = key(
        None,
        description="The model decides, and humans decide this share blind afterwards. "
        "Without it a human confirms each case.",
    )
    share: kinds.Share | None = key(
        None,
        description="The model decides this share of units, sampled at random; humans decide the "
        "rest and see nothing of it. Instead of blind; audit is then of the model's part.",
    )
    lasts: kinds.PositiveDuration = key(
        "90d", description="Length of a grant until it is renewed on fresh evidence."
    )
