"""What the declaration of a part of a policy says of its keys in the file.

The parts are plain frozen dataclasses. `rollout.formats.policy.sections` makes from them what reads
the file and the JSON Schema, so that values load no reader.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Key:
    """What a field is in the file; a field without one is computed.

    Its default is the field's. One that can't be written, such as None, is no default of the file.

    Attributes:
        kind: name of its type in `rollout.formats.policy.fields`; of a list or mapping that of
            its values; "" for sections and choices.
        description: for schema and reference.
        example: how it may be written.
        name: the key, where the field has another name.
        choices: the texts that it may be.
        is_enough: whether the row may be the text of this key alone.
        is_required: whether the file must have it although the field has a default.
        is_filled: whether a list or mapping must have something in it.
        written: its default in the file where that differs, in value or in form.
    """

    kind: str
    description: str
    example: str = ""
    name: str = ""
    choices: tuple[str, ...] = ()
    is_enough: bool = False
    is_required: bool = False
    is_filled: bool = False
    written: Any = None


@dataclass(frozen=True, slots=True)
class Spread:
    """Says that the keys of a field, a section itself, stand in the row that has the field."""

    keys: tuple[str, ...]
