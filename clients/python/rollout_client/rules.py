"""Who decides a case by a table: the human if anything is missing, unknown or askew.

These are the rules of the service that no table can hold: a case's time, its attributes, its
confidence and its sampling value.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from rollout_client.familiar_values import describe_unfamiliar
from rollout_client.local_table import MICROSECOND, CellSpan, LocalCell, LocalTable, LocalWindow
from rollout_client.questions import LeasedAnswer, LocalQuestion, ReadyAnswer, answer_human

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MAX_CLOCK_SKEW: Final = timedelta(minutes=5)
LEASE_ENDED: Final = answer_human("the lease has ended")
UNKNOWN: Final = answer_human("unknown site, key or version")
NO_TIME_GIVEN: Final = answer_human("the case has no time")
NO_ZONE: Final = answer_human("the case's time has no zone")
TOO_FAR: Final = answer_human("the case's time is more than 5 min from now")
NO_WINDOW_FITS: Final = answer_human("no window fits")
NOT_COVERED: Final = answer_human("the table has no such time")
BELOW_FLOOR: Final = "below the confidence floor"
NO_TIME: Final = timedelta(0)


def decide_by_table(
    table: LocalTable,
    find_bucket: Callable[[str], int],
    question: LocalQuestion,
    lease: timedelta,
    *,
    now: datetime,
    scope_at: datetime | None,
) -> LeasedAnswer:
    """Return who decides, as the service would at that instant.

    Args:
        lease: of the site.
        now: by the service's clock.
        scope_at: the time of the ledger's last entry; stages are read at it, or later.
    """
    answer = _refuse_case(table, question, now)
    if answer is not None:
        return LeasedAnswer(answer, lease)
    site, at = table.sites[question.site], question.at
    since = now if scope_at is None else max(now, scope_at)
    now_micros = table.count_micros(since)
    place = site.find_place(table.count_micros(at or now))
    now_place = site.find_place(now_micros)
    if place is None or now_place is None:
        return LeasedAnswer(NOT_COVERED, lease)
    window = select_window(site.windows[place], question.attributes)
    if window is None:
        return LeasedAnswer(NO_WINDOW_FITS, lease)
    cell = site.cells[window.id]
    span = cell.find_span(now_micros)
    if span.stage is None or table.names.get(question.version, question.version) != cell.version:
        return LeasedAnswer(cell.shadow, lease)
    end = min(site.get_close(now_place), span.until)
    lease = min(lease, (end - now_micros) * MICROSECOND)
    doubt = describe_doubt(table, cell, span, question.confidence, question.attributes)
    if doubt:
        return LeasedAnswer(answer_human(doubt, span.stage.id), lease)
    by_bucket = span.stage.by_bucket
    unit_key = compute_unit_key(table, question.key, question.site, question.at, question.episode)
    return LeasedAnswer(by_bucket[find_bucket(unit_key)], lease)


def _refuse_case(table: LocalTable, question: LocalQuestion, now: datetime) -> ReadyAnswer | None:
    """Return the answer to a case that is in no cell for what it lacks, or None."""
    if question.site not in table.sites or not question.key or not question.version:
        return UNKNOWN
    if question.at is None:
        return NO_TIME_GIVEN
    if question.at.utcoffset() is None:
        return NO_ZONE
    return TOO_FAR if abs(question.at - now) > MAX_CLOCK_SKEW else None


def describe_doubt(
    table: LocalTable,
    cell: LocalCell,
    span: CellSpan,
    confidence: float | None,
    attributes: Mapping[str, str] | None,
) -> str:
    """Return why the version that acts does not decide a case, or ""."""
    if not span.reaches_floor(confidence):
        return BELOW_FLOOR
    return describe_unfamiliar(table.required, cell.familiar, attributes) if table.required else ""


def select_window(
    windows: Iterable[LocalWindow], attributes: Mapping[str, str] | None
) -> LocalWindow | None:
    """Return the first window that fits a case.

    None if none fits, or if the case lacks an attribute that a window asks for before.
    """
    values = attributes or {}
    for window in windows:
        if not all(isinstance(values.get(name), str) for name in window.when):
            return None
        if all(values[name] in texts for name, texts in window.when.items()):
            return window
    return None


def compute_unit_key(
    table: LocalTable, key: str, site: str, at: datetime | None, episode: str | None
) -> str:
    """Return a case's sampling key: its own, its episode's, or that of its span of the clock."""
    if table.is_case_unit:
        return key
    if episode or table.episode_span is None or at is None:
        return episode or key
    return f"{site}@{(at - EPOCH) // MICROSECOND // table.episode_span}"
