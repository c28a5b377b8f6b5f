"""How recorded files are written: encoding, separator, dates, numbers, columns."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FileReading:
    """How the files of one kind of records are written; None where nothing was chosen.

    Attributes:
        encoding: name of a codec; default UTF-8.
        delimiter: one character between columns; default by suffix.
        decimal: `.` or `,`; default `.`.
        date_formats: forms of times beside ISO 8601, see `rollout.formats.records.text_formats`.
        percent: confidence is from 0 to 100.
        unsure: labels that mean "no answer".
        exposure: what reviewers had seen, where the file does not say.
        columns: their column by our name.
        constants: one text for all rows, by our name.
        attributes: the columns that are attributes of the case.
        number_levers: levers whose answers are numbers and have the decimal sign; other answers are
            text, in which a comma stays.
        set_labels: levers whose answers are sets, with their labels.
        listed: by column (`site`, `value:<lever>`) the texts that are no placeholders, because the
            policy or an option lists them.
    """

    encoding: str | None = None
    delimiter: str | None = None
    decimal: str | None = None
    date_formats: tuple[str, ...] | None = None
    percent: bool | None = None
    unsure: tuple[str, ...] | None = None
    exposure: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] | None = None
    number_levers: frozenset[str] = frozenset()
    set_labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    listed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
