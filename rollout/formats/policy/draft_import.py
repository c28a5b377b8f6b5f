"""Draft the import section of a policy: how `rollout init` read the files."""

import json
import re
from collections.abc import Iterator, Mapping

from rollout.core.policy.file_readings import FileReading

_PLAIN = re.compile(r"[\w.+][\w .+-]*", re.ASCII)


def draft_import(readings: Mapping[str, FileReading]) -> Iterator[str]:
    """Yield the lines of the section; none if every file has the documented form."""
    rows = [(kind, list(_list_entries(reading))) for kind, reading in readings.items()]
    if not any(entries for _, entries in rows):
        return
    yield "# How `init` read the files; replay, plan and import read them in the same way."
    yield "import:"
    for kind, entries in rows:
        if entries:
            yield f"  - records: {kind}"
            yield from (f"    {entry}" for entry in entries)


def _list_entries(reading: FileReading) -> Iterator[str]:
    if reading.encoding not in (None, "utf-8"):
        yield f"encoding: {quote_scalar(str(reading.encoding))}"
    if reading.delimiter is not None:
        delimiter = "tab" if reading.delimiter == "\t" else f'"{reading.delimiter}"'
        yield f"delimiter: {delimiter}"
    if reading.decimal == ",":
        yield 'decimal: ","'
    date_formats = [name for name in reading.date_formats or () if name != "iso"]
    if date_formats:
        yield f"date_format: [{', '.join(map(quote_scalar, date_formats))}]"
    if reading.percent:
        yield "percent: true"
    if unsure := [label for label in reading.unsure or () if label]:
        yield f"unsure: [{', '.join(map(quote_scalar, unsure))}]"
    if reading.exposure is not None:
        yield f"exposure: {reading.exposure}"
    yield from _draft_columns(reading)


def _draft_columns(reading: FileReading) -> Iterator[str]:
    sources = {
        **{name: quote_scalar(column) for name, column in reading.columns.items()},
        **{name: f"{{value: {quote_scalar(text)}}}" for name, text in reading.constants.items()},
    }
    if reading.attributes is not None:
        pairs = (
            f"{quote_scalar(name)}: {quote_scalar(column)}"
            for name, column in reading.attributes.items()
        )
        sources["attributes"] = f"{{{', '.join(pairs)}}}"
    if sources:
        yield "columns:"
        yield from (f"  {quote_scalar(name)}: {source}" for name, source in sources.items())


def quote_scalar(text: str) -> str:
    """Return a text as a YAML scalar, quoted unless it is a plain word."""
    is_plain = _PLAIN.fullmatch(text) and not text.endswith((" ", "-"))
    return text if is_plain else json.dumps(text, ensure_ascii=False)
