"""Rendering of pages: templates with navigation, live region, headers and texts.

Style sheet and scripts are cached for a year under the hash of their content. Times are written by
the site's clock first, then the visitor's. A sealed page can't change, so its
Content-Security-Policy lists the hashes of its style sheet and style attributes; scripts, forms and
external resources are forbidden.
"""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from hashlib import sha256
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from zoneinfo import ZoneInfo

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment
from markupsafe import Markup, escape

from api.priority_threads import NARROWING_PAGES
from api.web_kit.page_context import HOME, TOKEN_FIELD, Visitor
from rollout.data.database.append_failures import StoreError
from rollout.engine.decide.permissions import Permission
from rollout.engine.words import formatting
from rollout.engine.words.event_kinds import find_tone
from rollout.engine.words.formatting import OPENING_NOTE, capitalize_first
from rollout.engine.words.state_text import CLOSED_PROPOSALS
from rollout.features.reports.pages.page_templates import load_templates, load_tokens
from rollout.features.reviews.reviews import count_pending_reviews
from rollout.kernel.calendar.instants import list_timezones

router = APIRouter()
MEDIA_TYPES: Final = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
STYLE_SHEET: Final = "console.css"  # served behind the tokens that reports have too
ASSET_NAMES: Final = (STYLE_SHEET, "live.js", "review.js")
IMMUTABLE_CACHE: Final = "public, max-age=31536000, immutable"
REVALIDATED_CACHE: Final = "no-cache"


@router.get("/assets/{name}")
def send_asset(name: str, of: str = "") -> Response:
    """Return one of the console's files.

    Raises:
        HTTPException: unknown name.
    """
    if name not in ASSET_NAMES:
        raise HTTPException(404)
    cache_control = IMMUTABLE_CACHE if of == _compute_hash(name) else REVALIDATED_CACHE
    media_type = MEDIA_TYPES[name.rpartition(".")[2]]
    return Response(
        _read_asset(name), media_type=media_type, headers={"Cache-Control": cache_control}
    )


def build_asset_url(name: str) -> str:
    """Return the URL of a file, with the hash of its content."""
    return f"{HOME}/assets/{name}?of={_compute_hash(name)}"


@cache
def _read_asset(name: str) -> bytes:
    content = (files("api.web_kit") / "assets" / name).read_bytes()
    return load_tokens().encode() + content if name == STYLE_SHEET else content


@cache
def _compute_hash(name: str) -> str:
    return sha256(_read_asset(name)).hexdigest()[:16]


KEYS_COOKIE: Final = "rollout-keys"
OFF: Final = "off"
YEAR_SECONDS: Final = 365 * 86_400
"""How long a browser keeps a setting, in seconds."""


def store_single_keys(response: Response, choice: str) -> None:
    """Store in the browser whether single keys are on; only `off` disables them."""
    value = OFF if choice == OFF else "on"
    response.set_cookie(KEYS_COOKIE, value, YEAR_SECONDS, path=HOME, httponly=True, samesite="lax")


def find_timezone(typed: str) -> str:
    """Return the IANA name of a timezone, ignoring case; "" if unknown.

    >>> find_timezone(" europe/vienna "), find_timezone("Vienna")
    ('Europe/Vienna', '')
    """
    name = typed.strip().casefold()
    return next((timezone for timezone in list_timezones() if timezone.casefold() == name), "")


@dataclass(frozen=True, slots=True)
class NavigationEntry:
    """One entry; `current` on its own page, `waiting` the pending count or None."""

    name: str
    href: str
    current: bool
    waiting: int | None = None


def _can_read(visitor: Visitor) -> bool:
    return visitor.has_permission_somewhere(Permission.READ)


def _count_open_incidents(visitor: Visitor) -> int:
    """Return the number of open incidents that the visitor may read."""
    count = 0
    for cached_rollout in visitor.service.state_cache.load_all():
        rollout_name = cached_rollout.state.rollout.name
        for incident in cached_rollout.state.scope.open_incidents.values():
            if incident.cell is None:
                count += visitor.caller.has_permission_somewhere(Permission.READ, rollout_name)
            else:
                count += visitor.has_permission(Permission.READ, rollout_name, incident.cell.site)
    return count


PENDING_COUNTERS: Final[Mapping[str, Callable[[Visitor], int]]] = {
    "Review": lambda v: sum(count_pending_reviews(v.service, v.caller, v.at).values()),
    "Incidents": _count_open_incidents,
}
ENTRY_RULES: Final[tuple[tuple[str, str, Callable[[Visitor], bool]], ...]] = (
    ("Overview", "/", lambda _visitor: True),
    ("Review", "/review", lambda visitor: visitor.has_permission_somewhere(Permission.REVIEW)),
    ("Divergences", "/divergences", _can_read),
    ("Incidents", "/incidents", _can_read),
    ("Reports", "/reports", _can_read),
    ("Ledger", "/ledger", _can_read),
    ("Settings", "/settings", lambda _visitor: True),
)


EXTRA_PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    "/review": ("/adjudication",),
    "/divergences": ("/cause",),
}
"""Paths that belong to an entry with another name."""


def build_navigation(visitor: Visitor, path: str) -> tuple[NavigationEntry, ...]:
    """Return the entries of the pages that the visitor may open."""
    return tuple(
        NavigationEntry(
            name,
            HOME + entry_path,
            current=_is_current(entry_path, path),
            waiting=_count_pending(name, visitor, path),
        )
        for name, entry_path, is_allowed in ENTRY_RULES
        if is_allowed(visitor)
    )


def _count_pending(name: str, visitor: Visitor, path: str) -> int | None:
    """Return the pending count of an entry, or None.

    Pages for stopping load no counts, and a database failure never breaks a page.
    """
    count_pending = PENDING_COUNTERS.get(name)
    if count_pending is None or path.endswith(NARROWING_PAGES):
        return None
    try:
        return count_pending(visitor) or None
    except StoreError:
        return None


def _is_current(entry_path: str, path: str) -> bool:
    if entry_path == "/":
        is_rollout_page = path.startswith(f"{HOME}/rollouts")
        return path == f"{HOME}/" or (
            is_rollout_page
            and not any(_is_current(entry_path, path) for _, entry_path, _ in ENTRY_RULES[1:])
        )
    return path.startswith(HOME + entry_path) or any(
        f"{prefix}/" in f"{path}/" for prefix in (entry_path, *EXTRA_PATHS.get(entry_path, ()))
    )


CONTENT_POLICY: Final = (
    "default-src 'self'; img-src 'self' data: https:; style-src 'self'; script-src 'self'; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
HEADERS: Final = {"Content-Security-Policy": CONTENT_POLICY, "Cache-Control": "no-store"}
SEE_OTHER: Final = 303
RUN_STARTED: Final = "started"
"""Query of a page after a long run was started: a replica that has no such run says so."""


def render_page(
    request: Request, visitor: Visitor | None, template: str, status: int = 200, **context: Any
) -> HTMLResponse:
    """Render a page.

    Args:
        request: the request.
        visitor: the signed-in user; None renders no navigation.
        template: its name, as `overview`.
        status: 422 if a form is shown again with errors.
        context: variables of the template.
    """
    html = render_html(request, visitor, template, **context)
    return HTMLResponse(html, status, HEADERS)


def render_html(request: Request, visitor: Visitor | None, template: str, **context: Any) -> str:
    """Return the text of a page, or of a part of one."""
    path = request.url.path
    base_context: dict[str, Any] = {
        "visitor": visitor,
        "page_token": "" if visitor is None else visitor.page_token,
        "token_name": TOKEN_FIELD,
        "nav": () if visitor is None else build_navigation(visitor, path),
        "path": path,
        "demo": getattr(request.app.state, "demo", None),
        "sections": [
            f"{part.sections[template]}.html.j2"
            for part in getattr(request.app.state, "parts", ())
            if template in part.sections
        ],
        "rollout": None,
        "live": None,
        "is_answer": request.method == "POST",
        "errors": {},
        "typed": {},
        "has_started_run": RUN_STARTED in request.query_params,
        "single_keys": request.cookies.get(KEYS_COOKIE) != OFF,
    }
    html = (
        create_environment().get_template(f"{template}.html.j2").render({**base_context, **context})
    )
    return keep_first_viewer_times(join_percent_signs(html))


def redirect_to(path: str) -> RedirectResponse:
    """Redirect to a console page after a form, so that reloading repeats nothing."""
    return RedirectResponse(HOME + path, SEE_OTHER, {"Cache-Control": "no-store"})


@cache
def create_environment() -> Environment:
    """Return the template environment with all filters and globals."""
    folders = {path.parent.name for path in Path(__file__).parents[1].glob("*/*.html.j2")}
    templates = load_templates("api", *sorted(folders))
    templates.filters.update(
        several=formatting.format_quantity,
        listed=formatting.join_words,
        **FILTERS,
    )
    templates.globals.update(
        home=HOME,
        asset=build_asset_url,
        opening_note=OPENING_NOTE,
    )
    return templates


CLOSED_POLICY: Final = (
    "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)


def build_content_policy(page: str) -> str:
    """Return the Content-Security-Policy of a self-contained page.

    >>> build_content_policy("<style>p{}</style><p>well")[:60]
    "style-src 'unsafe-hashes' 'sha256-gG2yISYereRMiG2lMXrbiUgi0U"
    """
    parser = _StyleParser()
    parser.feed(page)
    hash_sources = " ".join(f"'sha256-{_hash_text(text)}'" for text in dict.fromkeys(parser.texts))
    return (
        f"style-src 'unsafe-hashes' {hash_sources}; {CLOSED_POLICY}"
        if hash_sources
        else CLOSED_POLICY
    )


def _hash_text(text: str) -> str:
    return base64.b64encode(sha256(text.encode()).digest()).decode()


class _StyleParser(HTMLParser):
    """Collects the first style sheet and the style attributes of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self._sheets = 0
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.texts += [value for name, value in attrs if name == "style" and value]
        if tag == "style":
            self._sheets += 1
            self._inside = self._sheets == 1

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "style":
            self._inside = False


_TAG_OR_PERCENT: Final = re.compile(
    r"(<(textarea|option|pre|script)\b.*?</\2>|<[^>]*>)| %", re.DOTALL | re.IGNORECASE
)

ATTRIBUTE_PREFIX: Final = "is "
"""Prefix of an attribute's name in the filter of the divergences: `is camera`."""


def encode_segment(name: str) -> str:
    """Return a name as one segment of a URL path.

    >>> encode_segment("north/gate 2")
    'north%2Fgate%202'
    """
    return quote(name, safe="")


def group_hash(text: str, groups: int | None = None) -> str:
    """Return a hash in groups of four characters, all or the first `count`.

    >>> group_hash("9f2cab01ffee", 2), group_hash("9f2cab01")
    ('9f2c ab01 …', '9f2c ab01')
    """
    parts = [text[i : i + 4] for i in range(0, len(text), 4)]
    is_cut = groups is not None and groups < len(parts)
    return " ".join(parts[:groups]) + (" …" if is_cut else "")


def add_full_stop(text: str) -> str:
    """Return a sentence with a full stop, unless it ends with one.

    >>> add_full_stop("v1 is seen"), add_full_stop("hash 9f2c…"), add_full_stop("whole.")
    ('v1 is seen.', 'hash 9f2c…', 'whole.')
    """
    return text if text.endswith((".", "…", "!", "?")) else f"{text}."


def say_refusal(error: Exception) -> str:
    """Return a refusal as a sentence: its text goes on, so that a name may begin it.

    >>> say_refusal(ValueError("nora may not approve; ask an admin"))
    'Refused: nora may not approve; ask an admin.'
    """
    return f"Refused: {error}."


def mark_code(text: str) -> Markup:
    """Return an escaped text in which what backticks enclose is code.

    >>> mark_code("Run `rollout doctor` on <v1>.")
    Markup('Run <code>rollout doctor</code> on &lt;v1&gt;.')
    """
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(text.split("`"))
    )


def join_percent_signs(html: str) -> str:
    r"""Join numbers and percent signs with no-break spaces, outside form fields.

    >>> join_percent_signs('<p>5 %</p><input value="5 %"><textarea>5 %</textarea>')
    '<p>5\xa0%</p><input value="5 %"><textarea>5 %</textarea>'
    """
    return _TAG_OR_PERCENT.sub(lambda match: match[1] or "\u00a0%", html)


VIEWER_TIME_PATTERN: Final = re.compile(
    r'(?P<time><time datetime="(?P<day>[^"T]*)T[^"]*?(?P<offset>[+-][0-9:]+)">[^<]*</time>)'
    r' <span class="soft nowrap">\([^<]* for you\)</span>'
)
WEEKDAY_RANGE: Final = timedelta(days=14)
VIEWER_TIME: Final = Markup(' <span class="soft nowrap">({} for you)</span>')
DURATION_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def format_site_time(at: datetime, zone: str, visitor: Visitor, *, seconds: bool = False) -> Markup:
    """Format an instant by the site's clock, and the visitor's if it differs.

    Within 14 days it has a weekday; outside this year it has a year. The timezone's
    abbreviation tells the repeated hour in autumn apart.
    """
    local_time = at.astimezone(ZoneInfo(zone))
    element = _format_time_element(
        local_time, format_local_time(local_time, visitor.at, seconds=seconds)
    )
    viewer_time = at.astimezone(ZoneInfo(visitor.zone))
    if viewer_time.utcoffset() == local_time.utcoffset():
        return element
    same_day_text = (
        _format_clock(viewer_time, seconds=seconds)
        if viewer_time.date() == local_time.date()
        else ""
    )
    viewer_text = same_day_text or format_local_time(viewer_time, visitor.at, seconds=seconds)
    return element + VIEWER_TIME.format(viewer_text)


def keep_first_viewer_times(html: str) -> str:
    """Keep the visitor's time beside the first time of each site's day; drop the others.

    >>> times = (
    ...     '<time datetime="2027-06-14T09:00:00-07:00">09:00 PDT</time>'
    ...     ' <span class="soft nowrap">(10:00 MDT for you)</span>, '
    ... )
    >>> keep_first_viewer_times(2 * times).count("for you")
    1
    """
    seen_days: set[tuple[str, str]] = set()

    def keep_first(match: re.Match[str]) -> str:
        site_day = match["day"], match["offset"]
        if site_day in seen_days:
            return match["time"]
        seen_days.add(site_day)
        return match[0]

    return VIEWER_TIME_PATTERN.sub(keep_first, html)


def format_clock_time(at: datetime, zone: str, visitor: Visitor) -> Markup:
    """Format a clock time to the second, with the day unless it is today at the site."""
    local_time, viewer_time = at.astimezone(ZoneInfo(zone)), at.astimezone(ZoneInfo(visitor.zone))
    if local_time.date() != visitor.at.astimezone(ZoneInfo(zone)).date():
        return format_site_time(at, zone, visitor, seconds=True)
    element = _format_time_element(local_time, _format_clock(local_time, seconds=True))
    if viewer_time.utcoffset() == local_time.utcoffset():
        return element
    return element + VIEWER_TIME.format(_format_clock(viewer_time, seconds=True))


def format_viewer_time(at: datetime, visitor: Visitor, *, seconds: bool = False) -> Markup:
    """Format an instant that belongs to no site, by the visitor's clock."""
    viewer_time = at.astimezone(ZoneInfo(visitor.zone))
    return _format_time_element(
        viewer_time, format_local_time(viewer_time, visitor.at, seconds=seconds)
    )


def format_local_time(local_time: datetime, now: datetime, *, seconds: bool = False) -> str:
    """Format a local time.

    >>> zone = ZoneInfo("America/Vancouver")
    >>> format_local_time(
    ...     datetime(2027, 6, 20, 11, 2, tzinfo=zone), datetime(2027, 6, 17, tzinfo=zone)
    ... )
    'Sun 20 Jun 11:02 PDT'
    >>> format_local_time(
    ...     datetime(2026, 1, 2, 3, 4, tzinfo=zone), datetime(2027, 6, 17, tzinfo=zone)
    ... )
    '2 Jan 2026 03:04 PST'
    """
    is_near = abs(local_time - now) <= WEEKDAY_RANGE
    day = (
        f"{local_time:%a} {local_time.day} {local_time:%b}"
        if is_near
        else f"{local_time.day} {local_time:%b}"
    )
    year = (
        "" if local_time.year == now.astimezone(local_time.tzinfo).year else f" {local_time.year}"
    )
    return f"{day}{year} {_format_clock(local_time, seconds=seconds)}"


def format_day(day: date, today: date) -> str:
    """Format a day; the year only if it is not this one.

    >>> format_day(date(2027, 6, 20), date(2027, 6, 21))
    'Sunday, 20 June'
    """
    year = "" if day.year == today.year else f" {day.year}"
    return f"{day:%A}, {day.day} {day:%B}{year}"


def format_time_span(span: timedelta | float) -> str:
    """Format a duration in at most two units.

    >>> (
    ...     format_time_span(timedelta(days=2, hours=18, minutes=5)),
    ...     format_time_span(timedelta(minutes=38)),
    ...     format_time_span(0.4),
    ... )
    ('2 d 18 h', '38 min', '0 s')
    """
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    remaining = round(max(0.0, seconds))
    parts: list[str] = []
    for size, name in DURATION_UNITS:
        count, remaining = divmod(remaining, size)
        if count or parts or name == "s":
            parts.append(f"{count} {name}" if count or not parts else "")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part)


def _format_time_element(local_time: datetime, text: str) -> Markup:
    return Markup('<time datetime="{}">{}</time>').format(local_time.isoformat(), text)


def _format_clock(local_time: datetime, *, seconds: bool) -> str:
    zone = local_time.tzname() or ""
    return f"{local_time:%H:%M:%S} {zone}" if seconds else f"{local_time:%H:%M} {zone}"


INVALID_DAY_TEXT: Final = "Write a day as YYYY-MM-DD, or leave it empty"
MIN_DAY: Final = date(1970, 1, 1)
"""No case is older; earlier days are read as this one."""


def parse_day(
    fields: Mapping[str, str],
    name: str,
    timezone: str,
    errors: dict[str, str],
    *,
    is_end: bool = False,
) -> datetime | None:
    """Return the start of a day, or of the next one with `is_end`; an instant as it is.

    An invalid day, or an instant without its offset, adds a message to `errors` and is None.
    """
    text = fields.get(name)
    if text is None:
        return None
    try:
        if "T" in text:
            at = datetime.fromisoformat(text)
            return max(at, datetime.combine(MIN_DAY, time(), UTC)).astimezone(UTC)
        day = max(date.fromisoformat(text), MIN_DAY)
        starts_at = datetime.combine(day + timedelta(days=is_end), time(), ZoneInfo(timezone))
        return starts_at.astimezone(UTC)
    except (ValueError, OverflowError, TypeError):  # of an instant without an offset
        errors[name] = INVALID_DAY_TEXT
        return None


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "segment": encode_segment,
    "grouped": group_hash,
    "full_stop": add_full_stop,
    "code": mark_code,
    "first_large": capitalize_first,
    "site_time": format_site_time,
    "clock_time": format_clock_time,
    "your_time": format_viewer_time,
    "took": format_time_span,
    "event_tone": find_tone,
    "closed_state": CLOSED_PROPOSALS.__getitem__,
}
