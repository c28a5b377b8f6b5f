"""The seal of a report: a hash that stays valid when texts and rows of cases are erased.

Every text and every row of a case is a part that is hashed with a salt of its own; the seal covers
the parts' hashes instead of the parts. Salts follow from the report's `salt` and the part's place,
until an erasure: it replaces `salt` by the `salts` of the parts that stay, so that nobody can test
guesses of an erased part.
"""

import hmac
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

from rollout.reports.figures.report_version import compute_hash, format_canonical, is_case_row

SALT, SALTS, ERASED = "salt", "salts", "erased"
SALT_FIELDS: Final = frozenset({SALT, SALTS})
PART_DOMAIN: Final = b"rollout-report-part-1\n"
SALT_BYTES: Final = 16
TABLE: Final = "divergences.csv"
"""The first part of the place of a line of the table of divergences."""
ERASED_TEXT: Final = "(erased)"
STORED_PICTURE: Final = "stored with the case"
"""Stands for a picture that is shown from the case's media, and not sealed."""

Parts = Iterator[tuple[str, Any]]
FindSalt = Callable[[str], bytes]


def compute_seal(body: str) -> str:
    """Return the seal of a report's text."""
    values = json.loads(body)
    content = {name: value for name, value in values.items() if name not in SALT_FIELDS}
    return compute_hash(format_canonical(_fold(content, "", _get_salts(values))))


def compute_table_seal(values: Mapping[str, Any], table: str) -> str:
    """Return the seal of the table of divergences, of a report with these values."""
    find_salt = _get_salts(values)
    parts = (_hash_line(number, line, find_salt) for number, line in _number_lines(table))
    return compute_hash("\n".join(parts))


def leave_out_pictures(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report with references instead of embedded pictures."""
    return {name: _leave_out_pictures(value) for name, value in values.items()}


def find_pictured_cases(values: Mapping[str, Any]) -> frozenset[str]:
    """Return the keys of the cases whose picture is stored with the case."""
    rows = values["divergences"]["top"]
    return frozenset(row["case_key"] for row in rows if row.get("picture") == STORED_PICTURE)


def restore_report(values: Mapping[str, Any], pictures: Mapping[str, str | None]) -> dict[str, Any]:
    """Return a report as it is shown: with pictures by case, without erased rows and salts."""
    return {
        name: _restore(value, pictures) for name, value in values.items() if name not in SALT_FIELDS
    }


def restore_table(table: str) -> str:
    """Return the table of divergences without erased lines."""
    return "".join(line for _, line in _number_lines(table) if not _is_erased_line(line))


def erase_parts(body: str, table: str, is_erased: Callable[[Any], bool]) -> tuple[str, str] | None:
    """Return text and table without the parts for which `is_erased`; None if there is none.

    `is_erased` gets texts, rows of cases, and lines of the table.
    """
    values = json.loads(body)
    content = {name: value for name, value in values.items() if name not in SALT_FIELDS}
    parts = [*_list_parts(content, ""), *_list_lines(table)]
    places = {place for place, part in parts if part is not None and is_erased(part)}
    if not places:
        return None
    find_salt = _get_salts(values)
    salts = {place: find_salt(place).hex() for place, _ in parts if place not in places}
    erased_body = _erase(content, "", places, find_salt)
    lines = (
        f"{ERASED}:{_hash_line(number, line, find_salt)}\n"
        if f"{TABLE}/{number}" in places
        else line
        for number, line in _number_lines(table)
    )
    return format_canonical({**erased_body, SALTS: salts}), "".join(lines)


def _get_salts(values: Mapping[str, Any]) -> FindSalt:
    if SALTS in values:
        salts: Mapping[str, str] = values[SALTS]
        return lambda place: bytes.fromhex(salts[place])
    secret = bytes.fromhex(values.get(SALT, ""))  # a report without one is not what was sealed
    return lambda place: hmac.digest(secret, place.encode(), "sha256")[:SALT_BYTES]


def _hash_part(part: Any, salt: bytes) -> str:
    return sha256(PART_DOMAIN + salt + format_canonical(part).encode()).hexdigest()


def _walk(value: Any, place: str, replace_part: Callable[[str, Any], Any]) -> Any:
    """Return a value with each part replaced; rows of cases are parts in lists only."""
    if isinstance(value, str) or _is_erased(value):
        return replace_part(place, value)
    if isinstance(value, Mapping):
        return {
            name: _walk(item, _join_place(place, name), replace_part)
            for name, item in value.items()
        }
    if isinstance(value, list):
        places = (_join_place(place, str(index)) for index in range(len(value)))
        return [
            replace_part(row_place, row)
            if is_case_row(row)
            else _walk(row, row_place, replace_part)
            for row_place, row in zip(places, value, strict=True)
        ]
    return value


def _fold(value: Any, place: str, find_salt: FindSalt) -> Any:
    """Return a value with the hash of each part in its place."""

    def replace_part(place: str, part: Any) -> str:
        return str(part[ERASED]) if _is_erased(part) else _hash_part(part, find_salt(place))

    return _walk(value, place, replace_part)


def _erase(value: Any, place: str, places: Iterable[str], find_salt: FindSalt) -> Any:
    def replace_part(place: str, part: Any) -> Any:
        return {ERASED: _hash_part(part, find_salt(place))} if place in places else part

    return _walk(value, place, replace_part)


def _list_parts(value: Any, place: str) -> Parts:
    parts: list[tuple[str, Any]] = []

    def add_part(place: str, part: Any) -> Any:
        if not _is_erased(part):
            parts.append((place, part))
        return part

    _walk(value, place, add_part)
    yield from parts


def _list_lines(table: str) -> Parts:
    """Yield the rows of the table that are not erased; the header is None."""
    for number, line in _number_lines(table):
        if not _is_erased_line(line):
            yield f"{TABLE}/{number}", line if number else None


def _number_lines(table: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of each row; a quoted cell may have several lines."""
    number, row = 0, ""
    for line in table.split("\n"):
        row += line
        if row.count('"') % 2:
            row += "\n"
        elif row:
            yield number, f"{row}\n"
            number, row = number + 1, ""


def _hash_line(number: int, line: str, find_salt: FindSalt) -> str:
    if _is_erased_line(line):
        return line.removeprefix(f"{ERASED}:").rstrip("\n")
    return _hash_part(line, find_salt(f"{TABLE}/{number}"))


def _is_erased_line(line: str) -> bool:
    return line.startswith(f"{ERASED}:")


def _is_erased(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {ERASED}


def _join_place(place: str, name: str) -> str:
    """Return a place as a JSON pointer (RFC 6901)."""
    return f"{place}/{name.replace('~', '~0').replace('/', '~1')}"


def _leave_out_pictures(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: STORED_PICTURE
            if name == "picture" and isinstance(item, str) and item.startswith("data:")
            else _leave_out_pictures(item)
            for name, item in value.items()
        }
    return [_leave_out_pictures(item) for item in value] if isinstance(value, list) else value


def _restore(value: Any, pictures: Mapping[str, str | None]) -> Any:
    if _is_erased(value):
        return ERASED_TEXT
    if isinstance(value, Mapping):
        restored = {name: _restore(item, pictures) for name, item in value.items()}
        if restored.get("picture") == STORED_PICTURE:
            restored["picture"] = pictures.get(restored["case_key"])
        return restored
    if isinstance(value, list):
        return [_restore(item, pictures) for item in value if not _is_erased(item)]
    return value
