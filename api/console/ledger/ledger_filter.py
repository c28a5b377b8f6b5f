"""The filter form of a ledger."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from fastapi import Request

from api.console.ledger.ledger_text import parse_actor
from rollout.reports.text.event_kinds import COUNTING_KINDS, EventGroups
from rollout.services.ledger.ledger_reader import LedgerFilter

FILTER_FIELDS: Final = ("kind", "who", "site", "since", "until")
INVALID_TIME_TEXT: Final = "Write a time such as 2027-06-17T15:30, or leave it empty"
MAX_FIELD_LENGTH: Final = 200  # maximum characters of a filter field


@dataclass(frozen=True, slots=True)
class LedgerSearch:
    """Values typed into the filter form, parsed filter and errors.

    Attributes:
        typed: the fields as typed, for the form.
        row_filter: the conditions on entries.
        errors: messages by field; invalid fields don't filter.
    """

    typed: Mapping[str, str]
    row_filter: LedgerFilter
    errors: Mapping[str, str]

    @property
    def site(self) -> str:
        """Return the site to filter by, "" for all."""
        return self.typed["site"]

    @property
    def is_narrowed(self) -> bool:
        """Return whether any filter is set."""
        return any(self.typed.values())

    def to_query(self, **extra: object) -> str:
        """Return the filter as a URL query, with extra parameters."""
        filled = {name: value for name, value in self.typed.items() if value}
        parameters = {**filled, **{name: str(value) for name, value in extra.items()}}
        return f"?{urlencode(parameters)}" if parameters else ""


def parse_ledger_search(request: Request, groups: EventGroups, zone: str) -> LedgerSearch:
    """Parse the filter form of a URL.

    Args:
        request: the request.
        groups: the selectable kinds of events.
        zone: timezone of typed times.
    """
    fields = {
        name: request.query_params.get(name, "").strip()[:MAX_FIELD_LENGTH]
        for name in FILTER_FIELDS
    }
    errors: dict[str, str] = {}
    times: dict[str, datetime | None] = {}
    for name in ("since", "until"):
        try:
            times[name] = _parse_instant(fields[name], zone)
        except ValueError:
            times[name], errors[name] = None, INVALID_TIME_TEXT
    kinds = groups.get(fields["kind"], ("", ()))[1]
    row_filter = LedgerFilter(
        kinds,
        parse_actor(fields["who"]),
        times["since"],
        times["until"],
        hidden_kinds=() if fields["kind"] in groups else COUNTING_KINDS,
    )
    return LedgerSearch(fields, row_filter, errors)


def _parse_instant(typed: str, zone: str) -> datetime | None:
    if not typed:
        return None
    instant = datetime.fromisoformat(typed)
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=ZoneInfo(zone))
