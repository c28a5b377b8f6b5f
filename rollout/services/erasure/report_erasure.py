"""Erasing rows of cases and names from sealed reports, whose seals stay valid."""

import csv
from collections.abc import Callable, Collection
from io import StringIO
from typing import Any

from rollout.reports.figures.report_seal import erase_parts
from rollout.reports.figures.report_version import CASE_FIELDS
from rollout.reports.inputs.csv_cells import unescape_cell
from rollout.store.counting.purge import open_purge
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.erasure.texts import contains_word
from rollout.store.reports.reports import ReportStore

PartFilter = Callable[[Any], bool]


def erase_from_reports(
    transaction: Transaction, rollout: Rollout, is_erased: PartFilter
) -> tuple[int, ...]:
    """Erase parts of all reports; return the numbers of the changed ones.

    Reports are read one at a time.
    """
    store, changed_numbers = ReportStore(transaction, rollout), []
    for number in store.list_numbers():
        report = store.get(number)
        erased = report and erase_parts(report.body, report.divergences, is_erased)
        if erased:
            with open_purge(transaction):
                store.replace_content(number, *erased)
            changed_numbers.append(number)
    return tuple(changed_numbers)


def match_words(words: Collection[str]) -> PartFilter:
    """Return the filter for texts and rows that have one of the words."""

    def is_matching(part: Any) -> bool:
        if isinstance(part, str):
            text = part.replace('""', '"')  # as a line of a table writes one quote
            return any(word in text and contains_word(text, word) for word in words)
        if isinstance(part, dict):
            return any(is_matching(item) for item in part.values())
        return isinstance(part, list) and any(is_matching(item) for item in part)

    return is_matching


def match_cases_of(keys: Collection[str]) -> PartFilter:
    """Return the filter for rows of cases, and for texts that name one."""
    names_case = match_words(keys)

    def is_matching(part: Any) -> bool:
        if isinstance(part, dict):
            return any(part.get(field) in keys for field in CASE_FIELDS) or names_case(part)
        return _read_first_cell(part) in keys or names_case(part)

    return is_matching


def _read_first_cell(line: str) -> str:
    """Return the key in a line of the table; keys and other texts may have line breaks.

    >>> _read_first_cell("'=cmd,v1"), _read_first_cell("'a,b',v1")
    ('=cmd', "'a")
    """
    try:
        cells = next(csv.reader(StringIO(line, newline="")), [])
    except csv.Error:  # a text longer than a cell may be, which is no line of the table
        return ""
    return unescape_cell(next(iter(cells), ""))
