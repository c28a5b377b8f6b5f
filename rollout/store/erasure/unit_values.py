"""Erases the attribute values of counted units that only erased cases have.

Such a value gets a pseudonym, the same for all units that have it: so no count by value changes.
A value that other cases share says nothing of one of them, and stays as evidence.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from secrets import token_hex
from typing import Final, NamedTuple

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
UNITS_PER_READ: Final = 2_000


class ValueHolders(NamedTuple):
    """Which units have values of those that are to be erased.

    Attributes:
        own_values: all values of the units of the cases to erase.
        shared_values: those that units of other cases have too, each with one such unit.
        erased_units: units with some of the values whose cases were erased before.
    """

    own_values: frozenset[NamedValue]
    shared_values: Mapping[NamedValue, int]
    erased_units: frozenset[int]


class UnitValues:
    """The attribute values of one rollout's counted units.

    `numbers` are those of the cases to erase, and of the episodes and clock spans in which they
    were counted.
    """

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._is_own = counted_units.c.rollout == rollout.number

    def find_holders(self, numbers: Collection[int], *, after: int = -1) -> ValueHolders:
        """Return which other units of slots after one have values of these; of all, by default."""
        is_theirs = self._match_units(numbers)
        own_values = {value for text in self._read_texts(is_theirs) for value in list_values(*text)}
        shared, erased_units, read_texts = dict[NamedValue, int](), set[int](), set[TextPair]()
        columns = (counted_units.c.unit, IS_ERASED.label("is_erased"), *COLUMNS)
        is_later = counted_units.c.slot > after
        query = select(*columns).where(self._is_own, is_later, HAS_VALUES, ~is_theirs)
        rows = self._transaction.execute(query.execution_options(yield_per=UNITS_PER_READ))
        while len(shared) < len(own_values) and (row := next(rows, None)):
            text = (row.attribute_values, row.slices)
            if row.is_erased and own_values.intersection(list_values(*text)):
                erased_units.add(row.unit)
            elif not row.is_erased and text not in read_texts:
                read_texts.add(text)
                shared |= dict.fromkeys(own_values.intersection(list_values(*text)), row.unit)
        rows.close()
        return ValueHolders(frozenset(own_values), shared, frozenset(erased_units))

    def update_holders(
        self, numbers: Collection[int], earlier: ValueHolders, *, after: int
    ) -> ValueHolders:
        """Return the holders as they are now, from those of an earlier transaction.

        Call it in the transaction that erases, while no unit can be counted. It reads the units of
        slots after one, which the earlier transaction may have missed. All units are read anew in
        two rare cases: a value of the cases came since, or an erasure took a unit that shared one.
        """
        later = self.find_holders(numbers, after=after)
        if not later.own_values <= earlier.own_values or self._has_erased(earlier):
            return self.find_holders(numbers)
        return ValueHolders(
            later.own_values,
            {**earlier.shared_values, **later.shared_values},
            earlier.erased_units | later.erased_units,
        )

    def _has_erased(self, holders: ValueHolders) -> bool:
        """Return whether a unit that shared a value was erased since."""
        are_sharing = self._match_units(set(holders.shared_values.values()))
        query = select(counted_units.c.unit).where(self._is_own, are_sharing, IS_ERASED)
        return self._transaction.execute(query.limit(1)).first() is not None

    def erase(self, numbers: Collection[int], holders: ValueHolders) -> int:
        """Replace all values that no other case has; return the number of changed units."""
        texts = self._seal(self._match_units(numbers))
        own_values = {value for text in texts for value in list_values(*text)}
        unique = sorted(own_values - holders.shared_values.keys())
        names = {value: PSEUDONYM.format(token_hex(4)) for value in unique}
        is_erased = and_(self._match_units([*numbers, *holders.erased_units]), IS_ERASED)
        erased_texts = set(self._read_texts(is_erased)) if names else ()
        return sum(self._replace_text(is_erased, text, names) for text in erased_texts)

    def _match_units(self, numbers: Collection[int]) -> ColumnElement[bool]:
        return counted_units.c.unit.in_(select_numbers(self._transaction, numbers))

    def _seal(self, is_theirs: ColumnElement[bool]) -> set[TextPair]:
        """Replace the random bytes of units by the hash that digests cover; return their values."""
        columns = (*KEY, counted_units.c.value_seal, *COLUMNS)
        query = select(*columns).where(self._is_own, is_theirs, HAS_VALUES, ~IS_ERASED)
        rows = self._transaction.execute(query).all()
        for row in rows:
            self._transaction.execute(
                update(counted_units)
                .where(self._is_own, *(column == getattr(row, column.name) for column in KEY))
                .values(value_seal=hash_values(row.value_seal, row.attribute_values, row.slices))
            )
        return {(row.attribute_values, row.slices) for row in rows}

    def _read_texts(self, condition: ColumnElement[bool]) -> Iterator[TextPair]:
        query = select(*COLUMNS).where(self._is_own, HAS_VALUES, condition)
        for row in self._transaction.execute(query.execution_options(yield_per=UNITS_PER_READ)):
            yield row.attribute_values, row.slices

    def _replace_text(
        self, is_erased: ColumnElement[bool], text: TextPair, names: Mapping[NamedValue, str]
    ) -> int:
        """Give the values of erased units their pseudonyms; return the number of changed units."""
        replaced = replace_values(*text, names)
        if replaced == text:
            return 0
        has_text = and_(*(c.is_not_distinct_from(t) for c, t in zip(COLUMNS, text, strict=True)))
        changed = (
            update(counted_units)
            .where(self._is_own, is_erased, has_text)
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
