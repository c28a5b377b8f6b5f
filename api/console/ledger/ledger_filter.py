"""What a reader looks for in a chain: the fields of the filter form, read and kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from fastapi import Request

from api.console.ledger.ledger_text import actor_named
from rollout.services.ledger.ledger_reader import Looked

FIELDS: Final = ("kind", "who", "site", "since", "until")
NO_TIME: Final = "Write a time as 2027-06-17T15:30, or leave it empty"
LONGEST: Final = 200  # letters of what is looked for
Groups = Mapping[str, tuple[str, tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Sought:
    """What was typed, what it means, and what is wrong with it.

    Attributes:
        typed: the fields as they came, for the form.
        looked: what rows must be.
        errors: a field's name and what to do about it; what is wrong is not looked for.
    """

    typed: Mapping[str, str]
    looked: Looked
    errors: Mapping[str, str]

    @property
    def site(self) -> str:
        """Return the site that is looked for, "" for all."""
        return self.typed["site"]

    @property
    def narrows(self) -> bool:
        """Say whether anything is left out."""
        return any(self.typed.values())

    def query(self, **more: object) -> str:
        """Return the same search as the end of an address, with a place to go on from."""
        filled = {name: value for name, value in self.typed.items() if value}
        parameters = {**filled, **{name: str(value) for name, value in more.items()}}
        return f"?{urlencode(parameters)}" if parameters else ""


def sought(request: Request, groups: Groups, zone: str) -> Sought:
    """Read the filter form of an address.

    Args:
        request: what was asked.
        groups: the kinds that there are to choose from.
        zone: of the clock on which times are typed.
    """
    fields = {name: request.query_params.get(name, "").strip()[:LONGEST] for name in FIELDS}
    errors: dict[str, str] = {}
    times: dict[str, datetime | None] = {}
    for name in ("since", "until"):
        try:
            times[name] = _instant(fields[name], zone)
        except ValueError:
            times[name], errors[name] = None, NO_TIME
    kinds = groups.get(fields["kind"], ("", ()))[1]
    row_filter = Looked(kinds, actor_named(fields["who"]), times["since"], times["until"])
    return Sought(fields, row_filter, errors)


def _instant(typed: str, zone: str) -> datetime | None:
    if not typed:
        return None
    instant = datetime.fromisoformat(typed)
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=ZoneInfo(zone))
