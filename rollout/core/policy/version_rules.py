"""What a policy says of single model versions."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VersionRule:
    """A version's row in the policy.

    Attributes:
        is_watched: its records are shown and never counted.
        content: SHA-256 of its weights and pre-processing; "" if the policy says none.
    """

    id: str
    is_watched: bool = False
    content: str = ""
