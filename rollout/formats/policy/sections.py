"""The base of all sections of a policy file."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def key(default: Any = ..., **field_options: Any) -> Any:
    """Return a field of the model; its default is written as in a file."""
    return Field(default, **field_options)


class PolicySection(BaseModel):
    """A mapping of the file; unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
