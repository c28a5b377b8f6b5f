"""config/deploy: each file is of its form, holds no right too many, and names what exists."""

import json
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from ipaddress import ip_address, ip_network
from pathlib import Path, PurePosixPath

import promql_parser
import pytest
import yaml
from jsonschema.validators import validator_for

from api.assignments import routes
from api.limits import BODY_TIMEOUT, HEAD_SECONDS, MAX_RAW_BYTES, UPLOAD_PATH
from api.records import routes as records
from api.serve import SHUTDOWN_SECONDS, TRANSACTION_SECONDS
from api.uploads.pages import MAX_SKIPPED_BYTES
from rollout.features.uploads.upload_runs import FILE_NAMES, MAX_FILE_BYTES
from rollout.settings import PREFIX, Settings
from rollout.worker.jobs import STOP_GRACE
from tests.data.databases import fresh
from tests.deploy.files import (
    FOLDER,
    list_program_calls,
    load_compose,
    load_instructions,
    load_unit,
    read_text,
)
from tests.docs.pages import ROOT, text_of
from tests.docs.small_pages import sample_metrics

SERIES = {re.split(r"[{ ]", line)[0] for line in sample_metrics() if not line.startswith("#")}
FROM_PROMETHEUS = {"up"}
SETTINGS = {PREFIX + name.upper() for name in Settings.__dataclass_fields__}


def list_alerts():
    (group,) = yaml.safe_load(read_text("alerts.yaml"))["groups"]
    return group["rules"]


def list_panels():
    return json.loads(read_text("grafana-dashboard.json"))["panels"]


def list_expressions():
    alerts = [(rule["alert"], rule["expr"]) for rule in list_alerts()]
    targets = [(panel["title"], t["expr"]) for panel in list_panels() for t in panel["targets"]]
    return alerts + targets


def list_selectors(node):
    """Return the vector selectors in a parsed expression."""
    if isinstance(node, promql_parser.VectorSelector):
        return [node]
    parts = ("expr", "lhs", "rhs", "vector_selector")
    children = [getattr(node, name) for name in parts if getattr(node, name, None) is not None]
    children += list(getattr(node, "args", None) or ())
    return [selector for child in children for selector in list_selectors(child)]


@pytest.mark.parametrize(("name", "expression"), list_expressions())
def test_an_expression_is_promql_of_metrics_that_exist(name, expression):
    selectors = list_selectors(promql_parser.parse(expression))
    assert selectors, expression
    assert {selector.name for selector in selectors} <= SERIES | FROM_PROMETHEUS


def test_promtool_accepts_the_alerts():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; the expressions are parsed above")
    subprocess.run([promtool, "check", "rules", FOLDER / "alerts.yaml"], check=True)


def test_alerts_say_what_happened_and_how_urgent_it_is():
    names = [rule["alert"] for rule in list_alerts()]
    assert len(set(names)) == len(names)
    for rule in list_alerts():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]


def test_the_dashboard_can_be_imported():
    ids = [panel["id"] for panel in list_panels()]
    assert len(set(ids)) == len(ids)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in list_panels()]
    assert len(set(places)) == len(places), "no panel hides another"


def test_the_container_runs_without_root():
    instructions = load_instructions()
    assert [words for name, words in instructions if name == "USER"] == ["10001:10001"]
    images = {words.split()[0] for name, words in instructions if name == "FROM"}
    assert len(images) == 1, "what is built runs on what it was built for"
    assert dict(instructions)["STOPSIGNAL"] == "SIGTERM"


def test_the_image_has_no_version_control_data():
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert ".git" in ignored
    stages = re.split(r"^FROM ", read_text("Containerfile"), flags=re.MULTILINE)
    copied = re.findall(r"^COPY (.*)$", stages[-1], re.MULTILINE)
    assert copied
    assert all(words.startswith("--from=build /opt/rollout ") for words in copied)


def test_the_compose_file_is_of_its_schema():
    schemas = files("check_jsonschema.builtin_schemas")
    schema = json.loads((schemas / "vendor/compose-spec.json").read_text("utf-8"))
    checker = validator_for(schema)(schema)
    compose = load_compose()
    assert [error.message for error in checker.iter_errors(compose)] == []
    compose["services"]["proxy"]["restarts"] = "always"
    assert [list(error.path) for error in checker.iter_errors(compose)] == [["services", "proxy"]]


def test_containers_have_a_read_only_root_and_no_capabilities():
    services = load_compose()["services"]
    own = {name: made for name, made in services.items() if made.get("image") == "rollout"}
    owner, backup = {"upgrade", "grant", "grant-backup"}, "backup"
    assert set(own) == owner | {backup, "manage", "replica-1", "replica-2"}
    for made in own.values():
        assert made["read_only"] is True
        assert made["tmpfs"] == ["/tmp"]  # noqa: S108 - in the container
        assert made["cap_drop"] == ["ALL"]
        assert made["security_opt"] == ["no-new-privileges:true"]
        assert set(made["environment"]) <= SETTINGS
    urls = {name: made["environment"]["ROLLOUT_DATABASE_URL"] for name, made in own.items()}
    assert all(("rollout_owner:" in url) == (name in owner) for name, url in urls.items())
    assert [name for name, url in urls.items() if "rollout_backup:" in url] == [backup]


def test_replicas_share_the_key_of_second_factors_and_keep_their_own_stops():
    """Seen: each wrote them into its own /tmp, so codes of one failed at the other."""
    compose = load_compose()
    replicas = [made for name, made in compose["services"].items() if name.startswith("replica")]
    mounts = [dict(reversed(text.split(":")) for text in made["volumes"]) for made in replicas]
    for made, volumes in zip(replicas, mounts, strict=True):
        key_file = PurePosixPath(made["environment"]["ROLLOUT_SECRET_KEY_FILE"])
        latches = made["environment"]["ROLLOUT_LATCH_FOLDER"]
        assert {str(key_file.parent), latches} == set(volumes)
        assert set(volumes.values()) <= set(compose["volumes"])
        assert f" {key_file.parent} " in read_text("Containerfile")  # its owner is the service
        assert f" {latches}\n" in read_text("Containerfile")
    keys, stops = zip(*(sorted(volumes.values()) for volumes in mounts), strict=True)
    assert len(set(keys)) == 1
    assert len(set(stops)) == len(replicas)


def test_replicas_believe_the_proxy_alone_where_a_client_is():
    compose = load_compose()
    address = compose["services"]["proxy"]["networks"]["default"]["ipv4_address"]
    (network,) = compose["networks"]["default"]["ipam"]["config"]
    assert ip_address(address) in ip_network(network["subnet"])
    replicas = [made for name, made in compose["services"].items() if name.startswith("replica")]
    assert {made["environment"]["ROLLOUT_TRUSTED_PROXIES"] for made in replicas} == {address}


def test_no_file_holds_a_password():
    for made in load_compose()["services"].values():
        for name, value in made.get("environment", {}).items():
            if "PASSWORD" in name or "@" in value:
                assert re.search(r"\$\{\w+:\?", value), name


def test_the_client_of_the_image_is_of_the_servers_major_version():
    """An older pg_dump refuses a newer server; a newer one's dumps may not load into it."""
    (server,) = re.findall(r"postgres:(\d+)", load_compose()["services"]["database"]["image"])
    image = read_text("Containerfile")
    assert re.findall(r"postgresql-client-(\d+)", image) == [server]
    assert f":/usr/lib/postgresql/{server}/bin:" in image, "not the wrapper, which guesses"
    base = re.findall(r"^FROM \S+-slim-(\w+)", image, re.MULTILINE)
    assert base == ["trixie"] * 2, "this release of Debian has that client"


def test_a_backup_a_day_is_taken_and_lies_where_its_user_may_write():
    backup = load_compose()["services"]["backup"]
    (loop,) = backup["command"]
    assert backup["entrypoint"] == ["sh", "-c"]
    (folder,) = re.search(r"do back-up.sh (\S+) \d+; sleep 3600; done$", loop).groups()
    assert "config/deploy/back-up.sh /opt/rollout/bin/\n" in read_text("Containerfile")
    assert backup["volumes"] == [f"backups:{folder}"]
    assert "backups" in load_compose()["volumes"]
    assert f" {folder} " in read_text("Containerfile")
    assert f"find {folder} " in backup["healthcheck"]["test"][1]


@pytest.fixture
def backups(tmp_path, monkeypatch):
    """Call back-up.sh on a database and a folder with three older backups."""
    folder = tmp_path / "backups"
    folder.mkdir()
    for day in ("20260101", "20260102", "20260103"):
        (folder / f"rollout-{day}.backup").write_text(day)
    (folder / "notes.txt").write_text("not a backup")
    program = Path(sys.executable).with_name("rollout").parent
    monkeypatch.setenv("PATH", str(program), prepend=":")

    def run(url, number):
        monkeypatch.setenv("ROLLOUT_DATABASE_URL", url)
        words = ["sh", FOLDER / "back-up.sh", folder, str(number)]
        code = subprocess.run(words, check=False, capture_output=True).returncode
        return code, sorted(file.name for file in folder.glob("rollout-*"))

    yield run
    assert (folder / "notes.txt").exists()


@pytest.mark.slow
def test_the_newest_backups_stay_and_a_second_call_adds_none(backups, tmp_path):
    with fresh("sqlite", tmp_path) as url:
        code, names = backups(url, 2)
        assert (code, len(names), names[0]) == (0, 2, "rollout-20260103.backup")
        assert backups(url, 2) == (0, names)
        assert backups("sqlite:///none/here.db", 1) == (0, names[1:]), "today's is there"


@pytest.mark.slow
def test_a_backup_that_fails_removes_none(backups):
    code, names = backups("sqlite:///none/here.db", 1)
    assert code
    assert len(names) == 3


def test_the_unit_has_no_right_that_it_needs_not():
    service = load_unit()["Service"]
    expected = {
        "DynamicUser": "yes",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "CapabilityBoundingSet": "",
    }
    assert {name: service[name] for name in expected} == expected
    assert "ROLLOUT_LOG_FORMAT" in SETTINGS


def test_a_replica_may_finish_its_requests_before_it_is_killed():
    """Seen: a body of records that took 9 s was cut off after 5, and the WAL stayed."""
    needed = SHUTDOWN_SECONDS + STOP_GRACE + TRANSACTION_SECONDS
    assert needed < int(load_unit()["Service"]["TimeoutStopSec"])
    replicas = [made for made in load_compose()["services"].values() if "stop_grace_period" in made]
    assert len(replicas) == 2
    assert all(needed < int(made["stop_grace_period"].removesuffix("s")) for made in replicas)


def test_systemd_accepts_the_unit(tmp_path):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed; the unit is parsed above")
    text = re.sub(r"(ExecStart\w*=)\S+", r"\1/bin/true", read_text("rollout.service"))
    unit = tmp_path / "rollout.service"
    unit.write_text(text, "utf-8")
    done = subprocess.run([analyze, "verify", unit], check=False, capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "rollout.service" in line]
    assert complaints == []


def test_nginx_sends_requests_to_the_replicas_of_the_compose_file():
    text = re.sub(r"#.*|'[^']*'|\"[^\"]*\"", "x", read_text("nginx.conf"))
    depth = 0
    for part in re.findall(r"[^{};]+|[{};]", text):
        depth += {"{": 1, "}": -1}.get(part, 0)
        assert depth >= 0
    assert depth == 0
    servers = set(re.findall(r"server (replica-\d):8000", text))
    assert servers == {name for name in load_compose()["services"] if name.startswith("replica")}
    assert re.search(r"proxy_set_header X-Forwarded-For \$remote_addr;", text), "not the client's"
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in text
    nginx = shutil.which("nginx")
    if nginx is not None:
        done = subprocess.run(
            [nginx, "-t", "-c", FOLDER / "nginx.conf"], check=False, capture_output=True
        )
        assert b"directive" not in done.stderr, done.stderr


def test_nginx_lets_through_what_the_service_takes_and_no_endless_head():
    text = read_text("nginx.conf")
    assert f"client_header_timeout {HEAD_SECONDS:.0f}s;" in text
    assert f"client_body_timeout {BODY_TIMEOUT:.0f}s;" in text
    assert f"client_max_body_size {MAX_RAW_BYTES // 2**20}m;" in text
    (place,) = re.findall(rf"location = {UPLOAD_PATH} {{(.*?)}}", text, re.DOTALL)
    assert f"client_max_body_size {MAX_SKIPPED_BYTES // 10**6}m;" in place
    assert len(FILE_NAMES) * MAX_FILE_BYTES < MAX_SKIPPED_BYTES
    repeated = re.findall(r"location ([^{]*){[^}]*non_idempotent", text)
    assert repeated == ["~ ^/v1/rollouts/[^/]+/(records|assignments)$ "]
    pattern = repeated[0].removeprefix("~ ").strip()
    paths = {f"{route.path}" for module in (records, routes) for route in module.router.routes}
    assert {path.rpartition("/")[2] for path in paths if re.search(pattern, path)} == {
        "records", "assignments",
    }  # fmt: skip
    assert "limit_conn addresses " in text


def test_a_replica_may_open_many_files():
    assert int(load_unit()["Service"]["LimitNOFILE"]) >= 65_536
    replicas = [made for made in load_compose()["services"].values() if "stop_grace_period" in made]
    assert {made["ulimits"]["nofile"] for made in replicas} == {65_536}


def test_the_page_names_each_file():
    page = text_of("docs/operations.md")
    assert {file.name for file in FOLDER.iterdir()} == set(
        re.findall(
            r"`([\w.-]+)`", page.partition("## Files to start from")[2].partition("\n## ")[0]
        )
    )


def test_each_call_is_of_a_command_that_exists():
    calls = {
        tuple(words[:2]) if words[0] == "db" else (words[0],) for _, words in list_program_calls()
    }
    commands = {("db", name) for name in ("upgrade", "grant", "current", "backup")}
    assert calls == commands | {("serve",)}
