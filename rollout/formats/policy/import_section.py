"""The section `import` of a policy file: how recorded files are written."""

from typing import Literal

from rollout.formats.policy import fields as kinds
from rollout.formats.policy.sections import PolicySection, key


class ImportShape(PolicySection):
    """How recorded files of one kind are written; `rollout init` drafts it."""

    records: Literal["cases", "predictions", "decisions", "outcomes", "pairs"] = key(
        description="Which file; pairs is the file of `rollout compare`.", examples=["predictions"]
    )
    encoding: kinds.Encoding | None = key(
        None, description="Encoding of a text file, such as latin-1 or utf-16. Default: UTF-8."
    )
    delimiter: kinds.Delimiter | None = key(
        None, description="Between columns: , ; | or tab. Default: by suffix, .csv or .tsv."
    )
    decimal: Literal[".", ","] | None = key(
        None, description="Decimal sign of numbers. Default: a point."
    )
    date_format: list[kinds.DateFormat] | None = key(
        None,
        min_length=1,
        description="Forms of times other than ISO 8601: day-first, month-first, year-first, "
        "unix-seconds, unix-milliseconds, or a pattern as %d-%b-%Y %H:%M.",
    )
    percent: kinds.Flag | None = key(
        None, description="Confidence is from 0 to 100. Default: from 0 to 1."
    )
    unsure: list[kinds.NonEmptyText] | None = key(
        None, min_length=1, description="Labels that mean: no answer."
    )
    exposure: Literal["blind", "assisted", "unknown"] | None = key(
        None,
        description="What reviewers had seen, where the file does not say. Default:"
        " evidence.outside.",
    )
    columns: kinds.ColumnSources | None = key(
        None,
        description="Their column by our name, {value: TEXT} for one text in all rows, and "
        "attributes: a list of columns.",
    )
