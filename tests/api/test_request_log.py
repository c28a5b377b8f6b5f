"""Logs in JSON: one line a request, with its id, and no name of anybody."""

import io
import json
import logging
import logging.config
from types import SimpleNamespace
from typing import Annotated

import pytest

from api.app import create_app
from api.auth import Caller, Permission, RequirePermission
from api.metrics import JsonFormatter, TextFormatter, build_log_config, request_id
from rollout.features.access.hashing_process import HashingProcess
from rollout.live import tick_passes
from rollout.live.evidence.evidence_seals import EvidenceReport
from rollout.live.tick_passes import TickScheduler
from rollout.settings import LOG_FORMATS as FORMS
from rollout.settings import Settings, read_settings
from rollout.worker import jobs
from tests.api.conftest import Asking
from tests.data.databases import on_sqlite
from tests.features import bear_field as field
from tests.features.bear_field import question


@pytest.fixture
def lines():
    """Log in JSON as `rollout serve` does; give a function that returns the lines."""
    root, access = logging.getLogger(), logging.getLogger("rollout.access")
    before = root.level, root.handlers[:], access.level
    logging.config.dictConfig(build_log_config("json"))
    written = io.StringIO()
    (handler,) = (h for h in root.handlers if isinstance(h.formatter, JsonFormatter))
    handler.setStream(written)
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    access.setLevel(before[2])


@on_sqlite
def test_a_request_is_a_line_with_its_id_and_route(client, database, lines):
    field.autonomous(database)
    sent = client.by("ana").get(
        "/v1/rollouts/bears/cases/secret-case", headers={"X-Request-ID": "r-1"}
    )
    assert sent.headers["X-Request-ID"] == "r-1"
    (line,) = [line for line in lines() if line["logger"] == "rollout.access"]
    assert line["request_id"] == "r-1"
    route = "/v1/rollouts/{rollout}/cases/{key:path}"
    assert (line["method"], line["route"], line["status"]) == ("GET", route, sent.status_code)
    assert 0 <= line["duration_ms"] < 60_000
    assert line["time"].endswith("+00:00")
    assert len(json.dumps(line | {"request_id": 32 * "0"})) <= 300, "as docs/operations.md says"


@on_sqlite
def test_no_line_names_a_caller_a_case_or_an_address(client, database, lines):
    field.autonomous(database)
    client.by("ana").post("/v1/rollouts/bears/assignments", json=question("secret-case", "creek"))
    client.by("ana").get("/v1/rollouts/bears/cases/secret-case?reviewer=bo")
    client.by("nobody-known").get("/v1/users/ana")
    text = json.dumps(lines())
    assert text.count("duration_ms") == 3
    for secret in ("secret-case", "ana", "nobody-known", "testclient", "127.0.0.1"):
        assert secret not in text, secret


@on_sqlite
def test_names_that_clients_make_up_are_no_labels_and_in_no_line(client, database, lines):
    """Each would be kept in memory; a stranger needs no key to send a method."""
    field.autonomous(database)
    client.by("ana")
    for number in range(3):
        client.request(f"SECRET{number}", "/v1/me")
        client.request(f"SECRET{number}", "/v1/secret")
        path = f"/v1/rollouts/secret{number}/assignments"
        assert client.post(path, json=question("c-1", "creek")).json()["decider"] == "human"
    client.post("/v1/rollouts/bears/assignments", json=question("c-1", "creek"))
    text = client.get("/metrics").text
    assert "secret" not in (text + json.dumps(lines())).lower()
    assert 'rollout_http_requests_total{method="_OTHER",route="/v1/me",status="405"} 3' in text
    assert 'rollout_assignments_total{rollout="",decider="human"} 3' in text
    assert 'rollout_assignments_total{rollout="bears"' in text


@on_sqlite
def test_no_line_of_a_job_has_the_text_of_an_exception(service, lines, monkeypatch):
    """Texts of exceptions and of changed evidence name cases and users."""
    error = ValueError("the decision of case secret-case by ana")
    scheduler = jobs.JobScheduler(service, "here")
    ticks = SimpleNamespace(seconds_by_rollout={}, errors={"bears": error})
    scheduler._tick_runner = TickScheduler(service.database, "here")
    monkeypatch.setattr(scheduler._tick_runner, "run_due_ticks", lambda *_, **__: ticks)
    reports = SimpleNamespace(run_report_jobs=lambda _at, **_: {"bears": error})
    scheduler._report_job._report_rounds = reports
    scheduler._heartbeat_worker._safety = SimpleNamespace(run_pass=lambda: (error,))
    report = EvidenceReport(faults=[str(error)], fault_count=1)
    monkeypatch.setattr(tick_passes, "sample_evidence", lambda *_: {"bears": report})
    monkeypatch.setattr(HashingProcess, "_exchange", _raise(error))
    scheduler._run_tick()
    scheduler._report_job.run()
    scheduler._heartbeat_worker._run_pass()
    scheduler._check_evidence()
    HashingProcess()._ask({})
    messages = [line["message"] for line in lines()]
    assert [message.partition(":")[0] for message in messages] == [
        "tick of bears failed; it is tried again",
        "no report of bears; it is tried again",
        "humans decide until this replica can write again",
        "evidence of bears changed, see its incident; run `rollout doctor --rebuild`; this sample",
        "the process that hashes passwords failed",
    ]
    text = json.dumps(lines())
    assert text.count("ValueError") >= 4
    assert "secret-case" not in text
    assert "ana" not in text


def _raise(error):
    def raise_error(*_args):
        raise error

    return raise_error


@pytest.mark.parametrize("sent", ["a b", "x" * 65, "", 'a"b', "é"])
@on_sqlite
def test_an_id_that_could_break_a_line_is_replaced(client, sent):
    answer = client.get("/health/live", headers={"X-Request-ID": sent.encode()})
    assert len(answer.headers["X-Request-ID"]) == 32


def test_an_exception_is_its_type_and_place_without_its_text():
    try:
        raise ValueError("Ana Roe is not known")  # noqa: TRY301
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("rollout.api", logging.ERROR, __file__, 1, "it failed", (), info)
    token = request_id.set("r-2")
    line = json.loads(JsonFormatter().format(record))
    request_id.reset(token)
    assert (line["message"], line["exception"], line["request_id"]) == (
        "it failed",
        "ValueError",
        "r-2",
    )
    assert "test_request_log.py" in line["stack"][0]
    assert "Ana" not in json.dumps(line)


def test_no_text_forges_a_line():
    forged = "x\nERROR: forged\r\u2028WARNING: forged"
    try:
        raise ValueError(forged)  # noqa: TRY301
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("rollout.api", logging.ERROR, __file__, 1, "%s", (forged,), info)
    formatter = TextFormatter("%(levelname)s: %(message)s")
    first, *others = formatter.format(record).splitlines()
    assert first == "ERROR: x"
    assert any("ERROR: forged" in line for line in others)
    assert {line[:4] for line in others} == {"    "}
    assert build_log_config("text")["formatters"]["line"]["()"] is TextFormatter


def test_a_failure_is_logged_by_its_route(service, caplog):
    app = create_app(service)

    def broken(who: Annotated[Caller, RequirePermission(Permission.IDENTIFY)]) -> None:
        raise ZeroDivisionError

    app.get("/v1/broken/{name}")(broken)
    client = Asking(app, raise_server_exceptions=False).by("ana")
    assert client.get("/v1/broken/ada%0AERROR").status_code == 500
    messages = [record.getMessage() for record in caplog.records]
    assert "GET /v1/broken/{name} failed" in messages
    assert "ada" not in " ".join(messages)


def test_in_text_no_request_is_logged():
    levels = {form: build_log_config(form)["loggers"]["rollout.access"]["level"] for form in FORMS}
    assert levels == {"text": "WARNING", "json": "INFO"}


def test_the_format_is_text_or_json():
    assert Settings().log_format == "text"
    assert read_settings({"ROLLOUT_LOG_FORMAT": "json"}).log_format == "json"
    with pytest.raises(ValueError, match="write text or json"):
        read_settings({"ROLLOUT_LOG_FORMAT": "xml"})


def test_half_of_a_character_costs_no_line():
    record = logging.LogRecord("rollout", logging.WARNING, "", 0, "site \ud800", None, None)
    assert json.loads(JsonFormatter().format(record))["message"] == "site \ud800"


def test_a_log_that_nobody_can_write_ends_no_request(client, lines, capsys):
    class FullPipe(io.StringIO):
        def write(self, _text):
            raise BrokenPipeError

    (handler,) = (h for h in logging.root.handlers if isinstance(h.formatter, JsonFormatter))
    handler.setStream(FullPipe())
    assert client.get("/v1/me").status_code == 200
    assert "BrokenPipeError" in capsys.readouterr().err
    assert lines() == []
