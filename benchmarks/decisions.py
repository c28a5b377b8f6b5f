"""Who decides, in a client's process with 100 sites x 24 windows, beside a dictionary look-up.

The look-up is that of an answer by site and version. Both are asked about the same cases in turns
within one process, and the ratio is that of the two CPU times of one turn. Both clocks of the lease
rule are read for each question, and a case has a key of its own.
"""

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from reported_figures import report_figure

sys.path.append(str(Path(__file__).parents[1] / "clients" / "python"))
SITES, WINDOWS, CELLS_SITES = 100, 24, 2_500
ROUNDS, QUESTIONS = 25, 4_000  # short turns: machines are noisy
DAY = timedelta(days=1)
GOALS = {"shadow": 10, "the model decides": 25}  # look-ups


def build_policy_text(sites: int, windows: int) -> str:
    """Return a policy with windows of equal length, in which the model decides."""
    hours = 24 // windows
    site_text = ", ".join(f"site-{number}" for number in range(sites))
    window_text = ", ".join(
        f'{{id: w{n}, hours: "{n * hours:02}:00-{(n + 1) * hours:02}:00"}}' for n in range(windows)
    )
    return f"""
rollout: bench
timezone: UTC
levers: [{{id: parcel, labels: [damaged, sound], answer_within: 2m, unanswered: damaged}}]
sites: [{site_text}]
windows: [{window_text}]
stages: [{{id: autonomous, audit: 10%}}]
evidence: {{unit: case}}
gates: [{{to: autonomous, require: [{{measure: agreement, at_least: 95%}}]}}]
lease: 30m
"""


def build_client(sites: int, windows: int) -> Any:
    """Return a client with a fresh snapshot in which `v1` decides everywhere."""
    from api.cells.routes import build_table_scope
    from rollout.engine.decide.scope import (
        Grant,
        Scope,
        Version,
        build_initial_state,
        set_cell_state,
    )
    from rollout.features.assignments.assignments import Snapshot
    from rollout.kernel.policy_files.reader import parse_policy
    from rollout_client import EdgeClient

    policy, now = parse_policy(build_policy_text(sites, windows)), datetime.now(UTC)
    grant = Grant("autonomous", now - DAY, now + 90 * DAY, "", now - DAY)
    cells: dict[Any, Any] = {}
    holders: dict[Any, str] = {}
    for cell in policy.cells:
        state = replace(build_initial_state(now - DAY, ()), grants=(grant,))
        set_cell_state(cells, holders, cell, "v1", state)
    scope = Scope(
        policy_number=1,
        versions={version: Version(version, now - DAY) for version in ("v1", "v2")},
        cells=cells,
        at=now - DAY,
        revision=9,
        _holders=holders,
    )
    leases = {site.id: policy.lease for site in policy.sites}
    made = Snapshot(
        rollout="bench",
        revision=9,
        hash="9f",
        policy=policy,
        policy_text="",
        sites=tuple(leases),
        scope=scope,
        salt=bytes(32),
        leases=leases,
        permits=dict.fromkeys(leases, "permit"),
        issued_at=now,
    )
    text = build_table_scope(made).model_dump_json()
    gc.collect()
    gc.freeze()  # what the service holds isn't in a client's process
    body = json.loads(text)
    client = EdgeClient("site-0", lambda _: body)
    client.renew()
    return client


def measure(ask: Callable[[str, datetime, str, str], Any], version: str) -> float:
    """Return the CPU microseconds a question, without those of the loop itself."""
    at = datetime.now(UTC)
    cases = [(f"site-{n * 7 % SITES}", at, version, f"case-{n}") for n in range(QUESTIONS)]
    started = time.process_time()
    for site, occurred, asked_version, key in cases:
        ask(site, occurred, asked_version, key)
    ended = time.process_time()
    for _site, _occurred, _version, _key in cases:
        pass
    return (2 * ended - started - time.process_time()) / QUESTIONS * 1e6


def measure_look_up(answers: dict[tuple[str, str], Any], version: str) -> float:
    """Return the CPU microseconds of a look-up by site and version."""
    names = [(f"site-{n * 7 % SITES}", version) for n in range(QUESTIONS)]
    started = time.process_time()
    for site, asked_version in names:
        answers[site, asked_version]
    ended = time.process_time()
    for _site, _version in names:
        pass
    return (2 * ended - started - time.process_time()) / QUESTIONS * 1e6


def measure_compiling(sites: int, windows: int) -> float:
    """Return the CPU seconds to prepare every site's present answers, of 10,000 cells in all."""
    client = build_client(sites, windows)
    at = datetime.now(UTC)
    client.decide("site-0", at, "v1", "warm")
    started = time.process_time()
    for number in range(sites):
        client.decide(f"site-{number}", at, "v1", "k")
    return time.process_time() - started


def format_table() -> Iterator[str]:
    """Yield the lines of the table."""
    from rollout_client import LocalQuestion

    client = build_client(SITES, WINDOWS)

    def decide_by_table(*question: Any) -> Any:
        return client._decide_by_table(LocalQuestion(*question))  # noqa: SLF001

    answers = {(f"site-{n}", version): n for n in range(SITES) for version in ("v1", "v2")}
    heading = f"{'a decision in process, CPU µs':34}{'min':>8}{'median':>8}{'max':>8}"
    yield f"{heading}{'ratio to look-up':>26}"
    ways: dict[str, tuple[Callable[..., Any], str]] = {
        "shadow": (client.decide, "v2"),
        "the model decides": (client.decide, "v1"),
        "shadow, by the table": (decide_by_table, "v2"),
        "the model, by the table": (decide_by_table, "v1"),
    }
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        look_up = measure_look_up(answers, "v2")
        for name, (ask, version) in ways.items():
            spent = measure(ask, version)
            if turn:  # the first warms up
                figures[name].append((spent, spent / look_up))
    for name, rows in figures.items():
        spent_times, ratios = ([row[n] for row in rows] for n in (0, 1))
        report_figure(name, "µs", spent_times)
        report_figure(f"{name}, look-ups", "ratio", ratios, GOALS.get(name))
        low, middle, high = min(spent_times), median(spent_times), max(spent_times)
        ratio = f"{min(ratios):.1f} / {median(ratios):.1f} / {max(ratios):.1f}"
        yield f"{name:34}{low:8.2f}{middle:8.2f}{high:8.2f}{ratio:>26}"
    times = sorted(measure_compiling(CELLS_SITES, 4) for _ in range(5))
    report_figure("10,000 cells prepared", "s", times, 0.2)
    yield f"10,000 cells prepared: {times[0]:.3f} / {times[2]:.3f} / {times[-1]:.3f} s (limit 0.2)"


if __name__ == "__main__":
    for line in format_table():
        print(line)
