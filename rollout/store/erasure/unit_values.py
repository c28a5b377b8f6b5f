"""Erases the attribute values of counted units that only erased cases have.

Such a value gets a pseudonym, the same for all units that have it: so no count by value changes.
A value that other cases share says nothing of one of them, and stays as evidence.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from secrets import token_hex
from typing import Final

from sqlalchemy import ColumnElement, and_, func, or_, select, update

from rollout.core.policy.familiarity import NO_VALUE, UNREADABLE
from rollout.store.counting.value_seals import HASH_BYTES, hash_values
from rollout.store.database.bulk import select_numbers
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import counted_units

TextPair = tuple[str | None, str | None]  # `attribute_values` and `slices` of a unit
NamedValue = tuple[str, str]
COLUMNS: Final = (counted_units.c.attribute_values, counted_units.c.slices)
KEY: Final = tuple(counted_units.c[name] for name in ("unit", "version", "track"))
HAS_VALUES: Final = or_(*(column.is_not(None) for column in COLUMNS))
IS_ERASED: Final = func.coalesce(func.length(counted_units.c.value_seal), 0) == HASH_BYTES
PLAIN_VALUES: Final = frozenset({NO_VALUE, UNREADABLE})
PSEUDONYM: Final = "(erased {})"


class UnitValues:
    """The attribute values of one rollout's counted units."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._is_own = counted_units.c.rollout == rollout.number

    def erase(self, numbers: Collection[int]) -> int:
        """Replace the values that only erased cases have; return the number of changed units.

        `numbers` are those of the cases to erase and of their episodes, whose units are theirs.
        """
        selected = select_numbers(self._transaction, numbers)
        is_theirs = or_(counted_units.c.unit.in_(selected), counted_units.c.case_id.in_(selected))
        self._seal(is_theirs)
        texts = self._list_texts(is_theirs)
        own_values = {value for text in texts for value in list_values(*text)}
        unique = sorted(own_values - self._find_shared(own_values))
        names = {value: PSEUDONYM.format(token_hex(4)) for value in unique}
        erased_texts = self._list_texts(IS_ERASED) if names else ()
        return sum(self._replace_text(text, names) for text in erased_texts)

    def _seal(self, is_theirs: ColumnElement[bool]) -> None:
        """Replace the random bytes of units by the hash that digests cover."""
        columns = (*KEY, counted_units.c.value_seal, *COLUMNS)
        query = select(*columns).where(self._is_own, is_theirs, HAS_VALUES, ~IS_ERASED)
        for row in self._transaction.execute(query).all():
            self._transaction.execute(
                update(counted_units)
                .where(self._is_own, *(column == getattr(row, column.name) for column in KEY))
                .values(value_seal=hash_values(row.value_seal, row.attribute_values, row.slices))
            )

    def _list_texts(self, condition: ColumnElement[bool]) -> list[TextPair]:
        query = select(*COLUMNS).distinct().where(self._is_own, HAS_VALUES, condition)
        return [(row.attribute_values, row.slices) for row in self._transaction.execute(query)]

    def _find_shared(self, values: Collection[NamedValue]) -> set[NamedValue]:
        """Return the values that a unit of other cases has too."""
        shared: set[NamedValue] = set()
        for text in self._list_texts(~IS_ERASED) if values else ():
            shared |= {value for value in list_values(*text) if value in values}
            if len(shared) == len(values):
                break
        return shared

    def _replace_text(self, text: TextPair, names: Mapping[NamedValue, str]) -> int:
        """Give the values of erased units their pseudonyms; return the number of changed units."""
        replaced = replace_values(*text, names)
        if replaced == text:
            return 0
        has_text = and_(*(c.is_not_distinct_from(t) for c, t in zip(COLUMNS, text, strict=True)))
        changed = (
            update(counted_units)
            .where(self._is_own, IS_ERASED, has_text)
            .values(attribute_values=replaced[0], slices=replaced[1])
        )
        return self._transaction.execute(changed).rowcount


def _read_cases(attribute_values: str | None, slices: str | None) -> list[dict[str, str | None]]:
    """Return the values of a unit's cases, then those of its slices."""
    return [*json.loads(attribute_values or "[]"), *([json.loads(slices)] if slices else [])]


def list_values(attribute_values: str | None, slices: str | None) -> Iterator[NamedValue]:
    """Yield the values of a unit by attribute, but those that say nothing."""
    for case in _read_cases(attribute_values, slices):
        for name, value in case.items():
            if value and value not in PLAIN_VALUES:
                yield name, value


def replace_values(
    attribute_values: str | None, slices: str | None, names: Mapping[NamedValue, str]
) -> TextPair:
    """Return a unit's texts with pseudonyms for some values.

    >>> replace_values('[{"form":"x"}]', '{"form":"x","size":"9"}', {("form", "x"): "(erased 1)"})
    ('[{"form":"(erased 1)"}]', '{"form":"(erased 1)","size":"9"}')
    """
    cases = [
        {name: names.get((name, value or ""), value) for name, value in case.items()}
        for case in _read_cases(attribute_values, slices)
    ]
    slice_text = None if slices is None else _encode(cases.pop())
    return None if attribute_values is None else _encode(cases), slice_text


def _encode(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
