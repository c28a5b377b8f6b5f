"""The section `versions` of a policy file."""

from typing import Literal

from rollout.formats.policy import fields as kinds
from rollout.formats.policy.sections import PolicySection, key


class VersionShape(PolicySection):
    """What holds for one model version."""

    id: kinds.Name = key(description="Name of the version, as records write it.", examples=["v7"])
    evidence: Literal["watch", "count"] = key(
        "count", description="watch shows its records and never counts them."
    )
    content: kinds.ContentHash | None = key(
        None,
        description="SHA-256 of weights and pre-processing: predictions that declare another are "
        "rejected.",
    )
