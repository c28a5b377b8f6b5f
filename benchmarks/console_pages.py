"""The console's pages on SQLite: CPU of the server and bytes for one load, with much to show.

A rollout of 50 sites in three windows that follow the sun, two versions, evidence in every cell,
and a ledger in which most cells were proposed, approved and widened.
"""

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from secrets import token_bytes
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time

import polars as pl
from argon2 import PasswordHasher
from reported_figures import report_figure
from starlette.testclient import TestClient

from api.app import create_app
from rollout.data.database.migrations import upgrade
from rollout.data.database.session import Database
from rollout.engine.decide.commands import Actor, ApproveProposal
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.decide.stops import StopTarget
from rollout.engine.evidence.frames import (
    REMARK_SCHEMA,
    RecordFrames,
    build_cases_schema,
    build_decisions_schema,
    build_outcomes_schema,
    build_predictions_schema,
)
from rollout.features.access import users
from rollout.features.access.authentication import Authenticator
from rollout.features.access.sign_in import SignIn
from rollout.features.records.record_import import import_records
from rollout.features.stops.stops import stop_cells
from rollout.live.clock import ManualClock
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import RolloutState, execute_command, load_rollout_state
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker

START = datetime(2027, 1, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)
END = START + timedelta(days=3, hours=10)
SITES = 50
HOURS = (12, 18, 2)  # of a case by day, in the evening, by night
PASSWORD = "correct horse battery"  # noqa: S105 - of a benchmark
POLICY = """
rollout: bench
timezone: Europe/London
levers: [{{id: parcel, labels: [damaged, sound]}}]
sites: [{sites}]
windows:
  - {{id: day, hours: sunrise-sunset}}
  - {{id: evening, hours: sunset-23:00}}
  - {{id: night, hours: 24/7}}
evidence: {{unit: case, grace: 1h, outside: blind}}
gates:
  - to: supervised
    require:
      - {{measure: agreement, at_least: 70%}}
      - {{measure: recall, label: sound, at_least: 60%}}
    minimum: {{units: 20, days: 1, reviewers: 1}}
  - {{to: autonomous, require: [{{measure: agreement, at_least: 95%}}]}}
guards:
  - {{measure: agreement, at_least: 60%}}
freezes: [{{hours: "Jan 09", reason: stocktaking}}]
tick: 1h
"""


def policy_text(sites: int) -> str:
    """Return a policy of so many sites, each with its own sun."""
    rows = (
        f"{{id: site-{n}, timezone: Europe/London, place: [{50 + n / 20:.2f}, -1.{n:02}]}}"
        for n in range(sites)
    )
    return POLICY.format(sites=", ".join(rows))


def history(sites: int, each: int) -> RecordFrames:
    """Return `each` cases of every cell over three days, answered by two versions and judged."""
    rows = [
        {
            "case_key": f"{site}-{hour}-{number}",
            "site": f"site-{site}",
            "at": START + (number % 3) * 24 * HOUR + hour * HOUR + timedelta(minutes=number),
            "said": "damaged" if _wrong(site, hour, number) else "sound",
        }
        for site in range(sites)
        for hour in HOURS
        for number in range(each)
    ]
    frame = pl.DataFrame(rows, schema_overrides={"at": pl.Datetime("us", "UTC")})
    labels = [
        frame.with_columns(version=pl.lit(version), **{"value:parcel": pl.col("said")})
        for version in ("v1", "v2")
    ]
    judged = frame.with_columns(
        pl.col("at") + timedelta(minutes=5),
        reviewer=pl.lit("ana"),
        unsure=pl.lit(value=False),
        exposure=pl.lit("blind"),
        **{"value:parcel": pl.lit("sound")},
    )
    none = pl.DataFrame(schema=REMARK_SCHEMA)
    return RecordFrames(
        cases=fit_schema(frame.with_columns(occurred_at="at"), build_cases_schema()),
        predictions=fit_schema(pl.concat(labels), build_predictions_schema(["parcel"])),
        decisions=fit_schema(judged, build_decisions_schema(["parcel"])),
        outcomes=pl.DataFrame(schema=build_outcomes_schema(["parcel"])),
        rejected=none,
        notes=none,
        row_counts={},
    )


def _wrong(site: int, hour: int, number: int) -> bool:
    """Say whether a case is answered wrongly: each cell has a share of its own."""
    return (site * 7919 + hour * 104_729 + number * 7907) % 1009 < 8 * (site % 13)


def fit_schema(frame: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """Return a frame with the columns of a schema, null where it has none."""
    there = set(frame.columns)
    return frame.select(
        (pl.col(name) if name in there else pl.lit(None)).cast(kind).alias(name)
        for name, kind in schema.items()
    )


def fill(database: Database, sites: int = SITES, each: int = 40) -> None:
    """Make the rollout: count, propose, approve and widen, and stop one site."""
    apply_policy(database, policy_text(sites), Actor("zoe"), START, salt=bytes(32))
    import_records(database, "bench", history(sites, each), END)
    ticker = Ticker(database, "bench", "filling")
    ticker.tick(END)
    for hour in (1, 2):
        _approve_all(database, END + hour * HOUR - timedelta(minutes=30))
        ticker.tick(END + hour * HOUR)
    ana = Caller("ana", role_assignments=(AssignedRole("operator"),))
    target = StopTarget(sites=("site-7",))
    stop_cells(database, ana, "bench", target, at=END + 3 * HOUR, reason="a try")


def _approve_all(database: Database, at: datetime) -> None:
    with database.begin_read() as transaction:
        proposals = list(load_rollout_state(transaction, "bench").scope.proposals.values())
    for number, proposal in enumerate(proposals):
        for name in ("dan", "eve")[: 1 if number % 5 == 0 else 2]:
            person = Actor(name, ("operator",))
            yes = ApproveProposal(
                at=at, by=person, proposal=proposal.id, evidence_hash=proposal.evidence_hash
            )
            execute_command(database, "bench", partial(_as_it_is, yes))


def _as_it_is(command: ApproveProposal, _: RolloutState) -> ApproveProposal:
    return command


def sign_in(database: Database, now: datetime) -> TestClient:
    """Return a browser in which ana, who operates everything, has signed in."""
    clock = ManualClock(now)
    users.create_first_admin(database, "ada", at=now)
    ada = users.load_local_caller(database, "ada")
    users.create_account(
        database,
        ada,
        "ana",
        at=now,
        role_assignments=(AssignedRole("operator"), AssignedRole("viewer")),
    )
    service = build_service(database, Authenticator(database, clock), clock)
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    service = replace(service, sign_in=SignIn(database, clock, token_bytes, quick))
    service.sign_in.set_password(ada, "ana", PASSWORD, at=now)
    client = TestClient(create_app(service), base_url="http://localhost:8000")
    client.headers["Sec-Fetch-Site"] = "same-origin"
    fields = {"name": "ana", "password": PASSWORD, "to": ""}
    client.post("/console/sign-in", data=fields, follow_redirects=False)
    return client


def measured(client: TestClient, path: str, times: int = 5) -> str:
    """Return the CPU of the first load and the median of later ones, and the bytes."""
    took, size, sent = [], 0, 0
    for _ in range(times):
        start = process_time()
        answer = client.get(path)
        took.append((process_time() - start) * 1000)
        answer.raise_for_status()
        if answer.history:
            raise RuntimeError(f"{path} leads to {answer.url}")
        size, sent = len(answer.content), int(answer.headers["content-length"])
    first, later = took[0], median(took[1:])
    report_figure(f"{path}, first", "ms of CPU", [first])
    report_figure(f"{path}, later", "ms of CPU", took[1:], 300)
    cost = f"first {first:.0f} ms, later {later:.0f} ms CPU"
    return f"{path}: {cost}, {sent / 1000:.1f} kB sent, {size / 1000:.1f} kB whole"


PAGES = ("/console/rollouts/bench", "/console/rollouts/bench?from=100", "/console/")


def main(folder: Path) -> None:
    """Fill a database, load each page in a process that has just begun, and say what it cost."""
    url = f"sqlite:///{folder / 'console.db'}"
    if not (folder / "console.db").exists():
        upgrade(url)
        fill(Database(url))
    with sign_in(Database(url), END + 3 * HOUR) as client:
        for path in PAGES:
            print(measured(client, path))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with TemporaryDirectory() as made:
            main(Path(made))
