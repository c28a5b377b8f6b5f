"""Tables of a rollout: its history, attribute values and numbers; and a version's next attempt.

The next attempt of a version in a cell begins after a page with its price was confirmed.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request, Response

from api.stops.routes import StopRequest
from api.web_kit.page import add_full_stop, encode_segment, redirect_to, render_page, say_refusal
from api.web_kit.page_context import CurrentVisitor, SignedForm, Visitor
from rollout.engine.decide.guards import foresee_year
from rollout.engine.decide.permissions import Permission, require_permission
from rollout.engine.decide.stops import StopTarget
from rollout.engine.evidence.gate_series import ValueCounts
from rollout.engine.words.event_kinds import SCOPE_KINDS, find_tone
from rollout.engine.words.event_text import EventDescription
from rollout.engine.words.formatting import (
    format_cell_name,
    format_count,
    format_decimal,
    format_decimal_interval,
    format_interval,
    format_number_interval,
    format_number_value,
    format_percent,
    format_quantity,
)
from rollout.engine.words.rule_text import describe_unfamiliar_share
from rollout.features.cells.cell_table import UNFAMILIAR_DAYS, CellValuesSummary
from rollout.features.reports.figures.agreement import NumberAgreement
from rollout.features.reports.pages.number_charts import choose_differences
from rollout.features.stops import stops
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.errors import NotEligibleError, RefusalError, UnknownCellError
from rollout.kernel.policy.familiarity import FAMILIAR, FEW, MISTAKEN, format_value
from rollout.kernel.policy.gates import compute_yearly_share, describe_restart
from rollout.kernel.policy.policy import Policy
from rollout.live.rollout_state import RolloutState

TIME_FORMAT_TEXT: Final = "Write a day and time such as 2027-06-17T14:32; leave it empty for now"
MIN_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""No rollout is older; every timezone can represent later instants."""
FUTURE_TIME_TEXT: Final = "This time is in the future; choose an earlier one"


@dataclass(frozen=True, slots=True)
class RequestedTime:
    """The requested instant.

    Attributes:
        at: the instant; None means now.
        typed: value of the field.
        error: message about an invalid value, or "".
    """

    at: datetime | None
    typed: str
    error: str = ""

    @property
    def link(self) -> str:
        """The instant in links, "" for now."""
        return "" if self.at is None else format_link_time(self.at)


def parse_requested_time(text: str, zone: str, now: datetime) -> RequestedTime:
    """Parse a requested instant; without an offset it is in the given timezone.

    >>> noon = datetime(2027, 6, 17, 12, tzinfo=UTC)
    >>> parse_requested_time("2027-06-16T14:32", "America/Vancouver", noon).at.isoformat()
    '2027-06-16T14:32:00-07:00'
    >>> parse_requested_time("yesterday", "UTC", noon).error == TIME_FORMAT_TEXT
    True
    """
    if not text:
        return RequestedTime(None, format_form_time(now, zone))
    try:
        at = datetime.fromisoformat(text)
        at = at.replace(tzinfo=ZoneInfo(zone)) if at.tzinfo is None else at
        typed = format_form_time(at, zone)
        is_future, is_valid = at.astimezone(UTC) > now, at.astimezone(UTC) >= MIN_TIME
    except (ValueError, OverflowError):
        return RequestedTime(None, text, TIME_FORMAT_TEXT)
    if not is_valid:
        return RequestedTime(None, text, TIME_FORMAT_TEXT)
    return RequestedTime(None, typed, FUTURE_TIME_TEXT) if is_future else RequestedTime(at, typed)


def format_form_time(at: datetime, zone: str) -> str:
    """Format an instant for a form field."""
    return f"{at.astimezone(ZoneInfo(zone)):%Y-%m-%dT%H:%M}"


def format_link_time(at: datetime) -> str:
    """Format an instant for links: UTC, to the microsecond."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One row of the history.

    Attributes:
        at, zone: time and its timezone.
        tone: `wider`, `narrower` or "".
        cell: its cell, or "".
        text: the event in words.
        link_time: its instant for links, "" if the map did not change.
        revision: its ledger revision.
    """

    at: datetime
    zone: str
    tone: str
    cell: str
    text: str
    link_time: str
    revision: int


def build_history_entries(
    items: Iterable[EventDescription], policy: Policy
) -> tuple[HistoryEntry, ...]:
    """Return the rows of the timeline, in the given order."""
    return tuple(_build_entry(item, policy) for item in items)


def _build_entry(item: EventDescription, policy: Policy) -> HistoryEntry:
    return HistoryEntry(
        at=item.at,
        zone=policy.get_timezone(item.site or ""),
        tone=find_tone(item.kind),
        cell=format_cell_name(item.site, item.window),
        text=add_full_stop(item.text),
        link_time=format_link_time(item.at) if item.kind in SCOPE_KINDS else "",
        revision=item.revision,
    )


@dataclass(frozen=True, slots=True)
class NumberRow:
    """A figure with its 95 % interval and the pairs behind it."""

    name: str
    value: str
    interval: str
    pairs: str


@dataclass(frozen=True, slots=True)
class NumberTable:
    """The figures of one lever."""

    lever: str
    rows: tuple[NumberRow, ...]


def build_number_tables(
    agreements: Mapping[str, Sequence[NumberAgreement]], versions: Iterable[str]
) -> tuple[tuple[NumberTable, ...], ...]:
    """Return the tables of each version, one a lever of numbers."""
    return tuple(
        tuple(
            NumberTable(agreement.lever, tuple(_build_rows(agreement)))
            for agreement in agreements.get(version, ())
        )
        for version in versions
    )


def _build_rows(agreement: NumberAgreement) -> Iterator[NumberRow]:
    within, differences = agreement.within, choose_differences(agreement)
    yield NumberRow(
        f"Within the tolerance of {agreement.tolerance}",
        format_percent(within.rate),
        format_interval(within),
        format_count(within.n),
    )
    for name, figure in (
        ("Bias (model − human)", differences.bias),
        ("Lower limit of agreement", differences.lower),
        ("Upper limit of agreement", differences.upper),
    ):
        value = format_number_value(figure.value, differences.unit)
        yield NumberRow(name, value, format_number_interval(figure), format_count(figure.n))
    concordance = agreement.concordance
    yield NumberRow(
        "Lin's concordance",
        format_decimal(concordance.value),
        format_decimal_interval(concordance),
        format_count(concordance.n),
    )


MAX_VALUE_ROWS: Final = 20
STATUS_TEXTS: Final = {
    FAMILIAR: "familiar",
    MISTAKEN: "differs too often",
    FEW: "judged too rarely",
}
HOLDING_NOTE: Final = (
    "A gate here tests each {0} by itself. Cases with an unfamiliar {0} no longer count for it, so"
    " that {0} can hold the gate."
)
HIDDEN_STATUS: Final = "not familiar"
HIDDEN_COUNT: Final = "–"
HIDDEN_NOTE: Final = "Differences are not shown, because you may be asked for a blind review here."


@dataclass(frozen=True, slots=True)
class ValueRow:
    """A row of the table: a value and its counts, formatted."""

    value: str
    met: str
    mistaken: str
    to_humans: str
    status: str


@dataclass(frozen=True, slots=True)
class ValueTable:
    """The values of a version; `notes` are sentences below it."""

    share: str
    rows: tuple[ValueRow, ...]
    notes: tuple[str, ...]


def list_gate_slices(policy: Policy, cell: Cell) -> tuple[str, ...]:
    """Return the attributes of which a gate of the cell tests each value."""
    conditions = policy.list_conditions(len(policy.stages), cell)
    return tuple(c.population.attribute for c in conditions if c.population.attribute)


def build_value_tables(
    summaries: Mapping[str, CellValuesSummary],
    versions: Iterable[str],
    *,
    is_blind: bool,
    sliced: Collection[str] = (),
) -> tuple[ValueTable | None, ...]:
    """Return the table of each version, None for one without units.

    Args:
        is_blind: whether the visitor may be asked for a blind review at the site.
        sliced: attributes of which a gate of the cell tests each value.
    """
    tables = (summaries.get(version) for version in versions)
    return tuple(
        None if summary is None else _build_table(summary, sliced, is_blind=is_blind)
        for summary in tables
    )


def _build_table(
    summary: CellValuesSummary, sliced: Collection[str], *, is_blind: bool
) -> ValueTable:
    more = len(summary.values) - MAX_VALUE_ROWS
    notes = [f"{format_quantity(more, 'more value')} met less often."] if more > 0 else []
    unfamiliar = {
        name
        for counts in summary.values
        if counts.reading.status != FAMILIAR
        for name in counts.value[0].split(" + ")
    }
    notes += [HOLDING_NOTE.format(name) for name in sorted(unfamiliar & {*sliced})]
    return ValueTable(
        share=describe_unfamiliar_share(summary.recent, UNFAMILIAR_DAYS),
        rows=tuple(_build_row(c, is_blind=is_blind) for c in summary.values[:MAX_VALUE_ROWS]),
        notes=(*notes, *([HIDDEN_NOTE] if is_blind else [])),
    )


def _build_row(counts: ValueCounts, *, is_blind: bool) -> ValueRow:
    reading = counts.reading
    is_hidden = is_blind and reading.status != FAMILIAR
    return ValueRow(
        value=format_value(counts.value),
        met=format_count(counts.met),
        mistaken=HIDDEN_COUNT
        if is_blind
        else f"{format_count(counts.mistaken)} of {format_count(reading.judged)}",
        to_humans=format_count(counts.to_humans),
        status=HIDDEN_STATUS if is_hidden else STATUS_TEXTS[reading.status],
    )


router = APIRouter()
NameQuery = Annotated[str, Query(max_length=200)]


@router.get("/rollouts/{rollout}/attempt")
def show_next_attempt(
    request: Request, rollout: str, visitor: CurrentVisitor,
    site: NameQuery = "", window: NameQuery = "", version: NameQuery = "",
) -> Response:  # fmt: skip
    """Show what the next attempt of a version in a cell costs, to confirm."""
    return _render_price(request, visitor, rollout, Cell(site, window), version)


@router.post("/rollouts/{rollout}/attempt")
def submit_next_attempt(
    request: Request, rollout: str, form: SignedForm, visitor: CurrentVisitor
) -> Response:
    """Begin the attempt and redirect to the cell."""
    cell, version = Cell(form.get_text("site"), form.get_text("window")), form.get_text("version")
    reason = StopRequest(reason=form.get_text("reason")).reason
    try:
        stops.begin_next_attempt(
            visitor.service.database, visitor.caller, rollout, StopTarget(cells=(cell,)), version,
            at=visitor.at, reason=reason,
        )  # fmt: skip
    except NotEligibleError as error:
        errors = {"reason": say_refusal(error)}
        return _render_price(request, visitor, rollout, cell, version, 422, errors=errors)
    visitor.service.state_cache.invalidate(rollout)
    path = "/".join(map(encode_segment, (rollout, "cells", cell.site, cell.window)))
    return redirect_to(f"/rollouts/{path}")


def describe_price(state: RolloutState, cell: Cell, version: str, visitor: Visitor) -> str:
    """Return what the next attempt of a version in a cell costs."""
    year = foresee_year(state.scope, state.policy, cell, visitor.at)
    share = compute_yearly_share(year.count, year.releases)
    return describe_restart(str(cell), [version], year.count, share)


def _render_price(
    request: Request, visitor: Visitor, rollout: str, cell: Cell, version: str, status: int = 200,
    errors: dict[str, str] | None = None,
) -> Response:  # fmt: skip
    require_permission(visitor.caller, Permission.READ, rollout)
    require_permission(visitor.caller, Permission.OPERATE, rollout, (cell.site,))
    state = visitor.service.state_cache.reload_rollout(rollout).state
    if cell not in state.policy.cell_set:
        raise UnknownCellError(f"the policy has no {cell}")
    if version not in state.scope.versions:
        raise RefusalError(f"{version} is no version of {rollout}")
    return render_page(
        request, visitor, "attempt", status,
        rollout=rollout, cell=cell, version=version, errors=errors or {},
        has_begun=state.scope.has_begun(cell, version),
        price=describe_price(state, cell, version, visitor),
    )  # fmt: skip
