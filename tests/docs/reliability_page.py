"""The page of faults and what they did, from docs/reliability.toml."""

from tests.faults.outcomes import load_outcomes

HEAD = """\
# Reliability

Generated from `reliability.toml` beside this page. Each run proves first that its fault is there.
`make faults` runs all of them.

- **lost**, **doubled**: acknowledged records, decisions or events that were missing or there twice.
- **wider**: answers `model` where the ledger or a stop gave the case to humans.
- **late stops**: stops that held later than promised.
- **recovery**: the longest time in seconds from the end of the fault to the first normal answer.

A dash means not measured: the fault does not touch it, or the note says why it was not run.

| fault | engine | tried | lost | doubled | wider | late stops | recovery | note |
|---|---|---|---|---|---|---|---|---|
"""
RUNS_HEAD = """
## Runs

| command | date | commit | rows |
|---|---|---|---|
"""


def write_reliability():
    """Return the page."""
    rows = load_outcomes()
    return HEAD + "".join(map(_format_row, rows)) + RUNS_HEAD + "".join(_format_runs(rows))


def _format_row(row):
    counts = (row.lost, row.doubled, row.wider, row.late_stops)
    recovery = None if row.recovery_seconds is None else f"{row.recovery_seconds:.1f}"
    figures = " | ".join("–" if figure is None else str(figure) for figure in (*counts, recovery))
    stale = f"STALE: {row.stale}" if row.stale else ""
    note = ". ".join(text for text in (row.note, stale) if text)
    return f"| {row.fault} | {row.engine} | {row.tried:,} | {figures} | {note} |\n"


def _format_runs(rows):
    runs = {}
    for row in rows:
        runs.setdefault((row.command, row.date, row.commit), []).append(row)
    for (command, day, commit), of_run in runs.items():
        yield f"| `{command}` | {day} | `{commit}` | {len(of_run)} |\n"
