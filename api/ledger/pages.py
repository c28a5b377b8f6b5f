"""Ledger pages: entries in words, verification and export, of rollouts and of access."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Annotated, Any, Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.web_kit.page import encode_segment, format_day, redirect_to, render_page
from api.web_kit.page_context import CurrentVisitor, Form, SignedForm, Visitor, build_live_region
from rollout.engine.decide.permissions import Permission
from rollout.engine.events import ENGINE
from rollout.engine.ledger.ledger import parse_event
from rollout.engine.words.event_kinds import (
    ACCESS_EVENT_GROUPS,
    COUNTING_KINDS,
    EVENT_GROUPS,
    EventGroups,
    find_tone,
)
from rollout.engine.words.event_text import (
    ZonedEventDescriber,
    describe_access_event,
    describe_event,
)
from rollout.features.cells.overview import load_rollouts
from rollout.features.ledger.ledger_reader import (
    LedgerEntry,
    LedgerFilter,
    LedgerPage,
    LedgerVerification,
    iterate_access_ledger_lines,
    iterate_ledger_lines,
    load_access_ledger_page,
    load_ledger_page,
    verify_access_ledger,
    verify_stored_ledger,
)

ENGINE_NAME: Final = "the engine"


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One ledger entry in words.

    Attributes:
        revision, at, kind, hash: as stored.
        zone: timezone of its time; "" for the visitor's.
        text: what happened; `reason`: what was typed as its reason, unless the text has it.
        location: cell and version, "" if it concerns none.
        by: the actor.
        proposal, incident: ids for links, or "".
        tone: `wider`, `narrower` or "".
    """

    revision: int
    at: datetime
    kind: str
    hash: str
    zone: str
    text: str
    reason: str
    location: str
    by: str
    proposal: str
    incident: str
    tone: str


def describe_ledger_page(page: LedgerPage) -> tuple[LedgerLine, ...]:
    """Describe the entries of a page, in their order."""
    if page.policy is None:
        return tuple(_describe_access_entry(entry) for entry in page.items)
    return describe_ledger_entries(page.items, ZonedEventDescriber(page.policy, page.cited))


def describe_ledger_entries(
    entries: Iterable[LedgerEntry], describer: ZonedEventDescriber
) -> tuple[LedgerLine, ...]:
    """Describe entries of a rollout's ledger, in their order."""
    return tuple(_describe_entry(entry, describer) for entry in entries)


def format_actor(actor: str) -> str:
    """Return the display name of an actor.

    >>> format_actor("bo"), format_actor("policy")
    ('bo', 'the engine')
    """
    return ENGINE_NAME if actor == ENGINE else actor


def parse_actor(typed: str) -> str:
    """Return the actor's name for a typed display name.

    >>> parse_actor(" The engine "), parse_actor("bo")
    ('policy', 'bo')
    """
    name = typed.strip()
    return ENGINE if name.lower() in {ENGINE_NAME, "engine"} else name


def _describe_entry(entry: LedgerEntry, describer: ZonedEventDescriber) -> LedgerLine:
    event: Any = parse_event(entry.row)
    description = describe_event(entry.row.revision, event, describer)
    cell, tone = describer.find_cell(event), find_tone(description.kind)
    text = description.text
    if cell is not None and tone and description.version:  # the location names it
        text = describe_event(entry.row.revision, replace(event, version=""), describer).text
    parts = (description.site, description.window, description.version)
    return LedgerLine(
        revision=description.revision,
        at=description.at,
        kind=description.kind,
        hash=entry.hash,
        zone=describer.find_zone(cell),
        text=text,
        reason=find_typed_reason(event),
        location=" · ".join(part for part in parts if part) if cell is not None else "",
        by=format_actor(description.by),
        proposal=str(entry.row.fields.get("proposal") or ""),
        incident=str(entry.row.fields.get("incident") or ""),
        tone=tone,
    )


def find_typed_reason(event: Any) -> str:
    """Return the reason that a user typed, or "" if there is none or the event's text has it."""
    return event.reason if event.is_reason_apart and event.by != ENGINE else ""


def group_by_day(
    lines: Iterable[LedgerLine], timezone: str, now: datetime
) -> tuple[tuple[str, tuple[LedgerLine, ...]], ...]:
    """Return the lines of each day in a timezone, with the day in words."""
    zone = ZoneInfo(timezone)
    days = groupby(lines, lambda line: line.at.astimezone(zone).date())
    return tuple((format_day(day, now.astimezone(zone).date()), tuple(each)) for day, each in days)


def _describe_access_entry(entry: LedgerEntry) -> LedgerLine:
    event = parse_event(entry.row)
    return LedgerLine(
        revision=entry.row.revision,
        at=event.at,
        kind=entry.row.kind,
        hash=entry.hash,
        zone="",
        text=describe_access_event(event),
        reason=find_typed_reason(event),
        location="",
        by=format_actor(event.by),
        proposal="",
        incident="",
        tone="",
    )


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


router = APIRouter()
NDJSON: Final = "application/x-ndjson"
PAGE_SIZE: Final = 50
MAX_REVISION: Final = 2**31 - 1
RevisionQuery = Annotated[int | None, Query(ge=1, le=MAX_REVISION)]
BOTH_FIELDS_TEXT: Final = "Give both the revision and the hash, or neither"


@dataclass(frozen=True, slots=True)
class LedgerChoice:
    """A ledger to open, or the reason why it can't be read."""

    name: str
    rows: int
    href: str
    withheld: str


@router.get("/ledger")
def show_ledgers(request: Request, visitor: CurrentVisitor) -> Response:
    """Show the readable ledgers; redirect if there is only one."""
    choices = _list_choices(visitor)
    if len(choices) == 1 and not choices[0].withheld:
        return redirect_to(choices[0].href)
    return render_page(request, visitor, "ledgers", choices=choices)


@router.get("/rollouts/{rollout}/ledger")
def show_ledger(
    request: Request, visitor: CurrentVisitor, rollout: str, before: RevisionQuery = None
) -> Response:
    """Show a rollout's ledger, newest entry first."""
    return _render_rollout_ledger(request, visitor, rollout, before)


@router.post("/rollouts/{rollout}/ledger")
def submit_verification(
    request: Request, visitor: CurrentVisitor, rollout: str, form: SignedForm
) -> Response:
    """Verify the hash chain and show the ledger with the result."""
    known_row, errors = _parse_known_row(form)
    if errors:
        return _render_rollout_ledger(request, visitor, rollout, None, typed=form, errors=errors)
    verification_result = verify_stored_ledger(
        visitor.service, visitor.caller, rollout, revision=known_row[0], row_hash=known_row[1]
    )
    return _render_rollout_ledger(
        request, visitor, rollout, None, verification_result=verification_result, typed=form
    )


@router.get("/rollouts/{rollout}/ledger/entries")
def export_ledger(visitor: CurrentVisitor, rollout: str) -> Response:
    """Export the stored entries as JSON Lines, for `rollout ledger verify`."""
    return _build_file_response(
        iterate_ledger_lines(visitor.service, visitor.caller, rollout), f"{rollout}-ledger"
    )


@router.get("/ledger/access")
def show_access_ledger(
    request: Request, visitor: CurrentVisitor, before: RevisionQuery = None
) -> Response:
    """Show the access ledger: accounts, roles and keys."""
    return _render_access_ledger(request, visitor, before)


@router.post("/ledger/access")
def submit_access_verification(
    request: Request, visitor: CurrentVisitor, _form: SignedForm
) -> Response:
    """Verify the access ledger's chain and show it with the result."""
    verification_result = verify_access_ledger(visitor.service, visitor.caller)
    return _render_access_ledger(request, visitor, None, verification_result)


@router.get("/ledger/access/entries")
def export_access_ledger(visitor: CurrentVisitor) -> Response:
    """Export the access ledger's stored entries as JSON Lines."""
    return _build_file_response(
        iterate_access_ledger_lines(visitor.service, visitor.caller), "access"
    )


def _list_choices(visitor: Visitor) -> tuple[LedgerChoice, ...]:
    database = visitor.service.database
    choices = [
        _build_choice(visitor, rollout_item.name, rollout_item.revision)
        for rollout_item in load_rollouts(database, visitor.caller)
    ]
    if visitor.has_permission(Permission.ADMINISTER):
        choices.append(LedgerChoice("Access ledger", 0, "/ledger/access", ""))
    return tuple(choices)


def _build_choice(visitor: Visitor, rollout_name: str, rows: int) -> LedgerChoice:
    sites = visitor.service.state_cache.load_rollout(rollout_name).state.policy.sites_by_id
    hidden_sites = [
        site for site in sites if not visitor.has_permission(Permission.READ, rollout_name, site)
    ]
    return LedgerChoice(
        rollout_name,
        rows,
        f"/rollouts/{encode_segment(rollout_name)}/ledger",
        ", ".join(hidden_sites),
    )


def _render_rollout_ledger(
    request: Request,
    visitor: Visitor,
    rollout: str,
    before: int | None,
    *,
    verification_result: LedgerVerification | None = None,
    typed: Form | None = None,
    errors: dict[str, str] | None = None,
) -> Response:
    service, caller = visitor.service, visitor.caller
    live_region = build_live_region(request, visitor, rollout)
    timezone = _get_timezone(visitor, rollout)
    search = parse_ledger_search(request, EVENT_GROUPS, timezone)
    ledger_rows = load_ledger_page(
        service,
        caller,
        rollout,
        search.row_filter,
        site=search.site,
        before=before,
        limit=PAGE_SIZE,
    )
    assert ledger_rows.policy is not None  # noqa: S101 - a rollout's ledger has one
    return _render_ledger(
        request,
        visitor,
        ledger_rows,
        search,
        verification_result,
        {**search.errors, **(errors or {})},
        typed,
        live=live_region,
        rollout=rollout,
        zone=timezone,
        sites=tuple(ledger_rows.policy.sites_by_id),
        groups=EVENT_GROUPS,
    )


def _render_access_ledger(
    request: Request,
    visitor: Visitor,
    before: int | None,
    verification_result: LedgerVerification | None = None,
) -> Response:
    search = parse_ledger_search(request, ACCESS_EVENT_GROUPS, visitor.zone)
    ledger_rows = load_access_ledger_page(
        visitor.service, visitor.caller, search.row_filter, before=before, limit=PAGE_SIZE
    )
    errors = dict(search.errors)
    return _render_ledger(
        request,
        visitor,
        ledger_rows,
        search,
        verification_result,
        errors,
        None,
        zone=visitor.zone,
        sites=(),
        groups=ACCESS_EVENT_GROUPS,
    )


def _render_ledger(
    request: Request,
    visitor: Visitor,
    ledger_rows: LedgerPage,
    search: LedgerSearch,
    verification_result: LedgerVerification | None,
    errors: dict[str, str],
    form: Form | None,
    **context: object,
) -> Response:
    lines, timezone = describe_ledger_page(ledger_rows), str(context["zone"])
    typed = {**search.typed, **_get_typed_fields(form)}
    next_path = (
        ""
        if ledger_rows.next_before is None
        else request.url.path + search.to_query(before=ledger_rows.next_before)
    )
    return render_page(
        request,
        visitor,
        "ledger",
        422 if errors else 200,
        ledger=ledger_rows,
        lines=lines,
        actors=[format_actor(actor) for actor in ledger_rows.actors],
        days=group_by_day(lines, timezone, visitor.at),
        search=search,
        verification=verification_result,
        errors=errors,
        typed=typed,
        further=next_path,
        newest=request.url.path + search.to_query(),
        is_first="before" not in request.query_params,
        **context,
    )


def _get_typed_fields(form: Form | None) -> dict[str, str]:
    names = ("seen-revision", "seen-hash")
    return {name: "" if form is None else form.get_text(name) for name in names}


def _parse_known_row(form: Form) -> tuple[tuple[int | None, str | None], dict[str, str]]:
    """Parse the entry that the reader knows; return it and the errors."""
    revision, row_hash = form.get_text("seen-revision"), form.get_text("seen-hash")
    if not revision and not row_hash:
        return (None, None), {}
    if not (revision and row_hash):
        return (None, None), {"seen-hash" if revision else "seen-revision": BOTH_FIELDS_TEXT}
    is_valid = revision.isascii() and revision.isdigit() and len(revision) < len(str(MAX_REVISION))
    if not is_valid:
        return (None, None), {"seen-revision": "Write the revision as a whole number, such as 214"}
    return (int(revision), "".join(row_hash.split()).lower()), {}


def _get_timezone(visitor: Visitor, rollout: str) -> str:
    """Return the rollout's timezone; the visitor's if they may not see the rollout."""
    if not visitor.caller.can_see(rollout):
        return visitor.zone
    return visitor.service.state_cache.load_rollout(rollout).state.policy.timezone


def _build_file_response(lines: Iterable[str], name: str) -> Response:
    headers = {
        "Content-Disposition": f'attachment; filename="{name}.jsonl"',
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse((f"{line}\n" for line in lines), media_type=NDJSON, headers=headers)
