"""The filter of the divergences: what stands in its form, and what it asks for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from rollout.services.divergences.divergence_list import Asked

NAMES: Final = ("version", "lever", "site", "window", "human", "model", "cost", "since", "until")
WORK: Final = {"open": False, "done": True}
ABOUT: Final = "is "
"""What stands before an attribute's name in the form: `is camera`."""
NO_DAY: Final = "Write a day as 2027-06-17, or leave it empty"
BACKWARDS: Final = "Let the first day be no later than the last one"
EARLIEST: Final = date(1970, 1, 1)
"""No case is older: a day before means this one."""
NO_COST: Final = "Write a cost as a number, as 20, or leave it empty"


@dataclass(frozen=True, slots=True)
class Sought:
    """What somebody typed into the form, what it asks for, and what is wrong with it.

    Attributes:
        typed: each field as it was typed; those that were left empty are left out.
        asked: what it asks for, without the fields that are wrong.
        errors: by field, in words.
    """

    typed: Mapping[str, str]
    asked: Asked
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def narrowed(self) -> bool:
        """Say whether anything but whose answers and which days was chosen."""
        return bool(self.typed.keys() - {"version", "lever", "since", "until"})

    def query(self, **changed: str) -> str:
        """Return it as a query, with some fields changed; empty ones are left out.

        >>> Sought({"site": "creek & lake"}, Asked()).query(after="9f")
        '?site=creek+%26+lake&after=9f'
        """
        filled = {name: value for name, value in {**self.typed, **changed}.items() if value}
        return f"?{urlencode(filled)}" if filled else ""


def sought(given: Mapping[str, str], zone: str) -> Sought:
    """Return what a query asks for.

    Args:
        given: the fields of the address.
        zone: of the policy, in which days begin.
    """
    names = [
        field_name
        for field_name in given
        if field_name in {*NAMES, "work"} or field_name.startswith(ABOUT)
    ]
    typed = {name: given[name] for name in names if given[name]}
    errors: dict[str, str] = {}
    since = _day(typed, "since", zone, errors)
    until = _day(typed, "until", zone, errors, end=True)
    if since is not None and until is not None and since >= until:
        errors["since"] = BACKWARDS
    criteria = Asked(
        **{name: typed.get(name) for name in ("version", "lever", "site", "window")},
        human=typed.get("human"),
        model=typed.get("model"),
        cost=_cost(typed, errors),
        slices={
            field_name.removeprefix(ABOUT): value
            for field_name, value in typed.items()
            if field_name.startswith(ABOUT)
        },
        since=None if errors else since,
        until=None if errors else until,
        chosen=WORK.get(typed.get("work", "")),
    )
    return Sought(typed, criteria, errors)


def _day(
    typed: Mapping[str, str], name: str, zone: str, errors: dict[str, str], *, end: bool = False
) -> datetime | None:
    """Return when a day begins, or the next one; None where none is named."""
    text = typed.get(name)
    if text is None:
        return None
    try:
        day = max(date.fromisoformat(text), EARLIEST)
        starts_at = datetime.combine(day + timedelta(days=end), time(), ZoneInfo(zone))
        return starts_at.astimezone(UTC)
    except (ValueError, OverflowError):
        errors[name] = NO_DAY
        return None


def _cost(typed: Mapping[str, str], errors: dict[str, str]) -> float | None:
    try:
        return float(typed["cost"]) if "cost" in typed else None
    except ValueError:
        errors["cost"] = NO_COST
        return None
