"""docs/operations.md: the contract of an outage, which clients.md quotes, and the night on call."""

import inspect
import re
from contextlib import closing

import pytest
import yaml
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from api.app import create_app
from api.priority_threads import NO_ANSWER_TEXT
from rollout.cli.main import app
from rollout.data.database import migrations, session
from rollout.data.database.session import POSTGRESQL_SETTINGS, Database, create_database_engine
from rollout.engine.decide.incident_kinds import INCIDENT_KINDS
from rollout.features.access.authentication import Authenticator
from rollout.live import autonomy
from rollout.live import autonomy as clock_check
from rollout.live.clock import SystemClock
from rollout.live.service import build_service
from tests.commands import forget_settings
from tests.data.databases import fresh
from tests.deploy.files import load_compose, read_text
from tests.docs.pages import text_of, typed

PAGE, CLIENTS = "docs/operations.md", "docs/how-to/clients.md"


def contract_of(page):
    """Return the quoted lines of a page as one text."""
    lines = re.findall(r"^> ?(.*)$", text_of(page), flags=re.MULTILINE)
    return " ".join(lines)


def test_clients_are_told_the_contract_of_the_service():
    contract = contract_of(PAGE)
    assert contract_of(CLIENTS) == contract
    (seconds,) = re.findall(r"within (\d+ s)", NO_ANSWER_TEXT)
    assert f"`human` within {seconds}" in contract
    assert f"get 503 within {seconds}, all others" in contract
    assert "`Retry-After`" in contract


def test_the_quotation_links_to_the_contract():
    assert "(../operations.md#what-happens-when-something-breaks)" in text_of(CLIENTS)


def list_rows():
    """Return the first cells of the table for the night on call."""
    table = text_of(PAGE).partition("| what I see |")[2].partition("\n\n")[0]
    return [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]]


def list_reasons():
    """Return the reasons for which readiness fails, or a replica lets humans decide."""
    doubts = [
        text
        for name, text in vars(autonomy).items()
        if isinstance(text, str) and name.isupper() and "humans decide" in text
    ]
    skew = re.findall(r'f"(the clock is .*?)"', inspect.getsource(clock_check.check_readiness))
    schema = inspect.getsource(migrations.check_schema_current)
    tables = re.findall(r'SchemaMismatchError\(f?"(.*?)"', schema)
    assert (len(doubts), len(skew), len(tables)) == (6, 1, 2)
    return [*doubts, *skew, *tables, session.OUTAGE_TEXT]


@pytest.mark.parametrize("reason", list_reasons())
def test_each_reason_of_readiness_has_one_row(reason):
    if reason == autonomy.TICKS_OVERDUE:
        assert any("`overdue` in `/health/ready`" in row for row in list_rows())
        return
    quoted = [re.findall("`([^`]+)`", row) for row in list_rows() if row.startswith("ready:")]
    assert [any(text in reason for text in texts) for texts in quoted].count(True) == 1


def test_each_alert_and_kind_of_incident_has_one_row():
    (group,) = yaml.safe_load(read_text("alerts.yaml"))["groups"]
    expected = [f"`{rule['alert']}`" for rule in group["rules"]]
    expected += [f"incident `{kind}`" for kind in INCIDENT_KINDS]
    expected.append("`stored: false`, 503")
    rows = list_rows()
    assert [name for name in expected if sum(name in row for row in rows) != 1] == []
    assert len(rows) == len(expected) + len([row for row in rows if row.startswith("ready:")]), (
        "a row of what does not exist"
    )


def test_the_page_has_the_pool_and_why_pgbouncer_pools_by_session():
    engine = create_database_engine("postgresql://role@host/name")
    pool = engine.pool
    assert f"at most {pool.size() + pool._max_overflow}\n  connections" in text_of(PAGE)
    assert "must pool by session: each connection has its own time limits" in text_of(PAGE)
    assert POSTGRESQL_SETTINGS, "set at each new connection"
    engine.dispose()


def test_tls_of_the_database_is_chosen_by_its_url():
    query = re.search(r"`\?(sslmode=[^`]+)`", text_of(PAGE))[1]
    engine = create_database_engine(f"postgresql://role@host/name?{query}")
    _, parameters = engine.dialect.create_connect_args(engine.url)
    assert (parameters["sslmode"], parameters["sslrootcert"]) == ("verify-full", "FILE")
    engine.dispose()


def test_prometheus_reads_each_replica_under_the_name_that_alerts_use():
    (job,) = yaml.safe_load(read_text("prometheus.yaml"))["scrape_configs"]
    replicas = [name for name in load_compose()["services"] if name.startswith("replica")]
    assert job["static_configs"] == [{"targets": [f"{name}:8000" for name in replicas]}]
    assert set(re.findall(r'job="(\w+)"', read_text("alerts.yaml"))) == {job["job_name"]}
    assert job["authorization"]["type"] == "Bearer"


@pytest.mark.slow
def test_the_key_of_the_page_reads_metrics(tmp_path, monkeypatch):
    forget_settings(monkeypatch)
    with fresh("sqlite", tmp_path) as url, closing(Database(url)) as database:
        monkeypatch.setenv("ROLLOUT_DATABASE_URL", url)
        lines = ["users first-admin ada"]
        lines += [" ".join(one.words) for one in typed(PAGE, "Monitoring")]
        printed = [CliRunner().invoke(app, line.split()).stdout for line in lines]
        (key,) = re.findall(r"\bro_\w+", printed[-1])
        clock = SystemClock()
        service = build_service(database, Authenticator(database, clock), clock)
        with TestClient(create_app(service)) as client:
            headers = {"Authorization": f"Bearer {key}"}
            assert client.get("/metrics", headers=headers).status_code == 200
            assert client.get("/metrics").status_code == 401


def test_logs_are_rotated_by_each_container():
    for made in load_compose()["services"].values():
        options = made["logging"]["options"]
        size = int(options["max-size"].removesuffix("m")) * int(options["max-file"])
        assert f"keeps {size} MB a container" in text_of(PAGE)
