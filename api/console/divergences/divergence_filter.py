"""The filter form of the divergences."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from api.console.page.day_field import parse_day
from api.console.page.text import ATTRIBUTE_PREFIX
from rollout.services.divergences.divergence_list import DivergenceQuery

FIELD_NAMES: Final = (
    "version",
    "lever",
    "site",
    "window",
    "human",
    "model",
    "cost",
    "since",
    "until",
)
HAS_CHOICE_BY_WORK: Final = {"open": False, "done": True}
REVERSED_DAYS_TEXT: Final = "Choose a first day that is not after the last day"
INVALID_COST_TEXT: Final = "Write a cost as a number, such as 20, or leave it empty"


@dataclass(frozen=True, slots=True)
class DivergenceSearch:
    """Values typed into the filter form, parsed query and errors.

    Attributes:
        typed: by field, as typed; empty fields are dropped.
        criteria: the query, without invalid fields.
        errors: messages by field.
    """

    typed: Mapping[str, str]
    criteria: DivergenceQuery
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_narrowed(self) -> bool:
        """Return whether a filter besides version, lever and days is set."""
        return bool(self.typed.keys() - {"version", "lever", "since", "until"})

    def to_query(self, **changes: str) -> str:
        """Return the URL query with some fields changed, without empty fields.

        >>> DivergenceSearch({"site": "creek & lake"}, DivergenceQuery()).to_query(after="9f")
        '?site=creek+%26+lake&after=9f'
        """
        filled = {name: value for name, value in {**self.typed, **changes}.items() if value}
        return f"?{urlencode(filled)}" if filled else ""


def parse_divergence_search(fields: Mapping[str, str], timezone: str) -> DivergenceSearch:
    """Parse the filter from the fields of a URL.

    Args:
        fields: the fields of the URL.
        timezone: of the policy; days begin in it.
    """
    names = [
        field_name
        for field_name in fields
        if field_name in {*FIELD_NAMES, "work"} or field_name.startswith(ATTRIBUTE_PREFIX)
    ]
    typed = {name: fields[name] for name in names if fields[name]}
    errors: dict[str, str] = {}
    since = parse_day(typed, "since", timezone, errors)
    until = parse_day(typed, "until", timezone, errors, is_end=True)
    if since is not None and until is not None and since >= until:
        errors["since"] = REVERSED_DAYS_TEXT
    criteria = DivergenceQuery(
        **{name: typed.get(name) for name in ("version", "lever", "site", "window")},
        human=typed.get("human"),
        model=typed.get("model"),
        min_cost=_parse_cost(typed, errors),
        slices={
            field_name.removeprefix(ATTRIBUTE_PREFIX): value
            for field_name, value in typed.items()
            if field_name.startswith(ATTRIBUTE_PREFIX)
        },
        since=None if errors else since,
        until=None if errors else until,
        has_choice=HAS_CHOICE_BY_WORK.get(typed.get("work", "")),
    )
    return DivergenceSearch(typed, criteria, errors)


def _parse_cost(typed: Mapping[str, str], errors: dict[str, str]) -> float | None:
    try:
        return float(typed["cost"]) if "cost" in typed else None
    except ValueError:
        errors["cost"] = INVALID_COST_TEXT
        return None
