"""What a policy says of single model versions."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VersionRule:
    """A version's row in the policy; `is_watched`: its records are shown and never counted."""

    id: str
    is_watched: bool = False
