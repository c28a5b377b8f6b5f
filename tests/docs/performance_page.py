"""The page of costs by size, from docs/performance.json, which `make curves` measured.

Of replicas the figures are older than the second request of a batch, which sends the predictions.
"""

import json

from tests.docs.pages import ROOT

MEASURED = ROOT / "docs/performance.json"
TICKS, PAIRS, QUESTIONS = "tick, cells", "a pair, stored cases", "first questions, sites"
REPLICAS = "all replicas"
MEANINGS = {
    TICKS: "a tick in memory after all cells changed",
    PAIRS: "storing case, prediction and decision on SQLite, 1,000 pairs a batch of two requests",
    QUESTIONS: "a client's first answers, one for each site",
    REPLICAS: "pairs stored by all replicas on one PostgreSQL, 1,000 a batch of one request",
}
TABLE = """\
## {meaning}

| {what} | least | median | most | unit | took | disk |
|---|---|---|---|---|---|---|
{rows}
"""
PAGE = """\
# Performance

Generated from `performance.json` beside this page. Other programs ran too: compare rows rather
than seconds. Measured on {processors} processors with Python {python}, each curve by the last run
that has it:

{runs}

`make bench` measures each part with its limit and with other libraries, in about 20 minutes.
`make curves` measures the tables below up to a million stored cases; **took** and **disk** say what
a row needs, preparations included.

## What breaks first

1. **The processor that stores records.** At {stored:,} stored cases a pair takes {pair:.0f} µs of
   CPU, so one processor stores at most {limit:,.0f} pairs a second. Send
   [batches](how-to/records.md) of 1,000; move to PostgreSQL with replicas on processors of their
   own. On SQLite all writers take turns.
2. **The disk.** {stored:,} stored cases take {disk:.1f} GB. [`retention.cases`](operations.md)
   deletes old cases.
3. **The tick.** After {cells:,} cells changed, deciding takes {tick:.1f} s of CPU, in proportion to
   the cells. If `rollout_tick_duration_seconds` nears the policy's `tick`, use a longer tick, or a
   rollout for each region.
4. **More replicas than processors.** {replicas} replicas store {growth:.1f} times as much as one
   here, where clients, replicas and PostgreSQL share {processors} processors. A second replica is
   for [restarts](operations.md).

{tables}"""


def write_performance():
    """Return the page, of the kept figures."""
    runs = json.loads(MEASURED.read_text(encoding="utf-8"))["runs"]
    curves = {}
    for run in runs:
        of_run = {}
        for point in run["points"]:
            of_run.setdefault(point["curve"], []).append(point)
        curves |= of_run
    stored, ticks, replicas = curves[PAIRS][-1], curves[TICKS][-1], curves[REPLICAS]
    gigabytes = stored["disk_bytes"] / 1e9
    return PAGE.format(
        **runs[-1]["setting"],
        runs="\n".join(map(_format_run, runs)),
        stored=stored["size"],
        pair=stored["median"],
        limit=1e6 / stored["median"],
        disk=gigabytes,
        cells=ticks["size"],
        tick=ticks["median"] / 1e3,
        replicas=replicas[-1]["size"],
        growth=replicas[-1]["median"] / replicas[0]["median"],
        tables="\n".join(_format_table(curve, points) for curve, points in curves.items()),
    )


def _format_run(run):
    setting = run["setting"]
    return (
        f"- `{run['command']}`: {setting['at']}, commit {setting['commit']}, load {setting['load']}"
    )


def _format_table(curve, points):
    meaning = MEANINGS[curve]
    what = "replicas" if curve == REPLICAS else curve.split(", ")[1]
    rows = "\n".join(map(_format_row, points))
    return TABLE.format(meaning=meaning[0].upper() + meaning[1:], what=what, rows=rows)


def _format_row(point):
    values = [f"{point['size']:,}"]
    values += [f"{point[name]:,.1f}" for name in ("min", "median", "max")]
    disk = point["disk_bytes"]
    values += [point["unit"], f"{point['seconds']:.0f} s"]
    values += ["–" if disk is None else f"{disk / 2**20:,.0f} MiB"]
    return f"| {' | '.join(values)} |"
