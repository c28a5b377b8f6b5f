"""The page of faults and what they did, from docs/reliability.toml."""

from tests.faults.outcomes import load_outcomes

HEAD = """\
# Reliability

{age}

Generated from `reliability.toml` beside this page. Each run first proves that its fault has
happened. `make faults` runs all of them.

- **tried**: how many kills or runs under traffic made the fault, or how many tests make it and
  check its effects. Rows are here only if all passed; a row's note says what else was proved.
- **lost**, **doubled**: acknowledged records, decisions or events that were missing or there twice.
- **wider**: answers `model` where the ledger or a stop gave the case to humans.
- **late stops**: stops that took effect later than [promised](concepts/grants.md#why-a-lease),
  judged by questions without a lease. They get `human` at once when the stop is acknowledged; on a
  second replica 0.5 s later; after a stop by command while the database fails, 3 s later.
- **recovery**: the longest time in seconds from the end of the fault to the first normal answer.
- **run**: when and on which commit, in the table [below](#runs).

A dash means that the run did not count this figure: its tests check something else.{stale}

| fault | engine | tried | lost | doubled | wider | late stops | recovery | run | note |
|---|---|---|---|---|---|---|---|---|---|
"""
STALE_TEXT = """ STALE means that
the code has changed since the run; its number is that of the [reason](#stale-rows)."""
RUNS_HEAD = """
## Runs

| run | command | date | commit | rows |
|---|---|---|---|---|
"""
STALE_HEAD = """
## Stale rows

"""


def write_reliability(rows=None):
    """Return the page, of the recorded outcomes unless others are given."""
    rows = load_outcomes() if rows is None else rows
    runs = list(dict.fromkeys(map(_find_run, rows)))
    reasons = list(dict.fromkeys(row.stale for row in rows if row.stale))
    page = HEAD.format(age=_describe_age(rows), stale=STALE_TEXT if reasons else "")
    page += "".join(_format_row(row, runs.index(_find_run(row)) + 1, reasons) for row in rows)
    page += RUNS_HEAD + "".join(_format_runs(rows, runs))
    return page + (STALE_HEAD + "".join(_format_stale(rows, reasons)) if reasons else "")


def _describe_age(rows):
    count = sum(bool(row.stale) for row in rows)
    if not count:
        return "No row is older than the code."
    reason = "the code has changed [since their run](#stale-rows)"
    return f"**{count} of {len(rows)} rows are STALE: {reason}.**"


def _find_run(row):
    return row.command, row.date, row.commit


def _format_row(row, run, reasons):
    counts = (row.lost, row.doubled, row.wider, row.late_stops)
    recovery = None if row.recovery_seconds is None else f"{row.recovery_seconds:.1f}"
    figures = " | ".join("–" if figure is None else str(figure) for figure in (*counts, recovery))
    stale = f"STALE {reasons.index(row.stale) + 1}" if row.stale else ""
    note = ". ".join(text for text in (row.note, stale) if text)
    tried = f"{row.tried:,} {row.tried_unit}{'s' * (row.tried != 1)}"
    return f"| {row.fault} | {row.engine} | {tried} | {figures} | {run} | {note} |\n"


def _format_runs(rows, runs):
    for number, run in enumerate(runs, start=1):
        command, day, commit = run
        count = sum(_find_run(row) == run for row in rows)
        yield f"| {number} | `{command}` | {day} | `{commit}` | {count} |\n"


def _format_stale(rows, reasons):
    for number, reason in enumerate(reasons, start=1):
        count = sum(row.stale == reason for row in rows)
        rows_text = f"{count} of {len(rows)} rows (STALE {number})"
        yield f"{number}. {rows_text}; since their run: {reason}.\n"
