"""The live demo: its history is like its traffic, which goes through the API like anybody's."""

import gc
import os
import re
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta

import httpx2
import pytest

from api.app import create_app
from api.demo.live import open_clients
from rollout import faults
from rollout.data.records.case_pages import NewestRecords
from rollout.data.records.external_keys import ExternalKeys
from rollout.features.demo import stage
from rollout.features.demo.accounts import (
    COLLEAGUE,
    DEMO_OPERATORS,
    RESUME_APPROVER,
)
from rollout.features.demo.catalog import MAIL_ROOM, find_example
from rollout.features.demo.player import (
    MAX_TRIES,
    QUIET_SECONDS,
    REPORT_SECONDS,
    RESUME,
    CaseTraffic,
    DemoApprover,
    DemoColleague,
    DemoPlayer,
    LedgerNarrator,
    WeeklyReporter,
    build_account_request,
)
from rollout.features.demo.recorded_cases import load_cases
from rollout.features.demo.stage import (
    DATABASE_FILE,
    SCHEDULE_FILE,
    UNFINISHED_PREFIX,
    build_case_records,
    open_stage,
    prepare_history,
)
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import TickScheduler
from tests.api.conftest import Asking
from tests.docs.pages import BLOCK, text_of

pytestmark = pytest.mark.simulation

HOUR = timedelta(hours=1)
ROLLOUT = "/v1/rollouts/mail-room"
EXAMPLE = find_example(MAIL_ROOM)
LIVE_FROM = EXAMPLE.serve_at


@pytest.fixture(scope="module")
def letters():
    return load_cases(EXAMPLE)


@pytest.fixture(scope="module")
def records():
    return build_case_records(EXAMPLE)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("rollout-demo")


@pytest.fixture(scope="module")
def points():
    """Return the points that ticks reach while the history is built."""
    return []


@pytest.fixture(scope="module")
def collecting():
    """Return whether garbage was collected, at each tick while the history is built."""
    return []


@pytest.fixture(scope="module")
def flushed():
    """Return the paths of the files that were flushed while the history was built."""
    return []


@pytest.fixture(scope="module")
def history(out, letters, records, points, collecting, flushed):
    def note_flush(number):
        flushed.extend(
            path for path in out.glob("*/*") if path.stat().st_ino == os.fstat(number).st_ino
        )

    with (
        pytest.MonkeyPatch.context() as patch,
        faults.install_action(points.append, "tick.claimed"),
        faults.install_action(points.append, "tick.taken"),
        faults.install_action(points.append, "ingest.parsed"),
        faults.install_action(lambda _: collecting.append(gc.isenabled()), "tick.evidence"),
    ):
        patch.setattr(stage.os, "fsync", note_flush)
        return prepare_history(out, EXAMPLE, records, letters, lambda: None)


@pytest.mark.usefixtures("history")
def test_a_tick_of_the_history_counts_all_that_is_due_at_once(points):
    """Small batches, as the service needs them, took a third of the first start's time."""
    assert 0 < points.count("tick.taken") <= points.count("tick.claimed")


@pytest.mark.usefixtures("history")
def test_a_tick_of_the_history_follows_one_batch_of_records(points):
    """A batch for each hour took a quarter of the first start's time."""
    assert 0 < points.count("ingest.parsed") <= points.count("tick.claimed")


@pytest.mark.usefixtures("history")
def test_no_garbage_is_collected_while_the_history_is_built(collecting):
    """It took a tenth of the first start's time; afterwards it is collected as before."""
    assert collecting
    assert not any(collecting)
    assert gc.isenabled()


def test_the_history_is_on_the_disk_before_it_has_its_name(history, flushed):
    assert [path.name for path in flushed] == [DATABASE_FILE, SCHEDULE_FILE]
    assert all(path.parent.name.startswith(UNFINISHED_PREFIX) for path in flushed)
    assert sorted(path.name for path in history.folder.iterdir()) == sorted(
        path.name for path in flushed
    )  # no WAL beside them


def test_no_record_of_the_history_is_received_before_it_occurs(history):
    with closing(sqlite3.connect(history.folder / stage.DATABASE_FILE)) as connection:
        (early,) = connection.execute(
            "select count(*) from cases where received_at < occurred_at"
        ).fetchone()
        (total,) = connection.execute("select count(*) from cases").fetchone()
    assert (early, total > 10_000) == (0, True)


def test_cases_with_pictures_share_pages(history):
    """With a page for each case the file was more than twice as large, and is copied each time."""
    with closing(sqlite3.connect(history.folder / stage.DATABASE_FILE)) as connection:
        ((size,), (count,)) = (
            connection.execute(query).fetchone()
            for query in ("pragma page_size", "select count(*) from cases")
        )
    assert size == stage.PAGE_BYTES
    assert (history.folder / stage.DATABASE_FILE).stat().st_size < count * 4096


def test_the_historys_permits_are_bound_as_those_of_its_clients_are(history):
    """Seen: they counted as unbound permits, so no answer was compared."""
    with closing(sqlite3.connect(history.folder / stage.DATABASE_FILE)) as connection:
        kinds = connection.execute(
            "select authorization, permit_kind, count(*) > 1000 from actions where \"by\" = 'model'"
            " group by authorization, permit_kind"
        ).fetchall()
    assert kinds == [("authorized", "bound", 1)]


@pytest.fixture
def demo(history, records):
    with open_stage(records.policy, LIVE_FROM) as stage:
        yield stage.open_history(history)


def asking(demo, name):
    client = Asking(create_app(demo.service))
    client.headers["Authorization"] = f"Bearer {demo.keys[name]}"
    return client


def begun(demo, letters, records):
    clients = {name: asking(demo, name) for name in records.find_clients("")}
    request = build_account_request(clients, demo.policy.rollout)
    traffic = CaseTraffic(records, request, EXAMPLE.training_cutoffs, list(demo.scheduled))
    return DemoPlayer(traffic, demo.clock, letters[demo.next_case :])


def played(demo, player, span):
    """Play some time, with a tick at each hour, as the demo does."""
    ticking, end = TickScheduler(demo.service.database, "test"), demo.clock.now() + span
    while demo.clock.now() < end:
        player.step()
        assert ticking.run_due_ticks(demo.clock.now()).errors == {}


def open_proposals(client):
    return client.get(f"{ROLLOUT}/proposals").json()["items"]


def approve(client, proposal):
    path = f"{ROLLOUT}/proposals/{proposal['id']}/approvals"
    body = {"evidence_hash": proposal["evidence_hash"], "reason": "looked at it"}
    answer = client.post(path, json=body)
    assert answer.status_code in {200, 201}, answer.text


def raise_anew(demo, letters, records):
    """Acknowledge the narrowing, which voided other cells' proposals; play an hour, go on."""
    ana = asking(demo, "ana")
    answer = ana.post(f"{ROLLOUT}/incidents/I-1/acknowledgement", json={})
    assert answer.status_code in {200, 201}, answer.text
    player = begun(demo, letters, records)
    played(demo, player, HOUR + timedelta(minutes=2))
    return ana, player


def test_the_history_ends_with_an_incident_two_hours_old_that_voided_the_proposals(demo):
    ana = asking(demo, "ana")
    assert open_proposals(ana) == []
    (incident,) = ana.get(f"{ROLLOUT}/incidents").json()["items"]
    assert incident["kind"] == "alarm"
    assert incident["opened_at"] == (LIVE_FROM - 2 * HOUR).isoformat().replace("+00:00", "Z")
    stages = {row["stage"] for row in ana.get(f"{ROLLOUT}/cells").json()["items"]}
    assert stages == {"shadow", "supervised", "autonomous"}


HOURS_OF_THE_STORY = 24


def test_at_every_hour_the_headline_names_the_planted_cause_or_none(demo, letters, records):
    """Seen: "human answer = 5" or "= 0" for 18 hours. An answer follows from its letter."""
    player, headlines = begun(demo, letters, records), []
    browser = sign_in(demo, "ana")
    for _ in range(HOURS_OF_THE_STORY):
        text = browser.get("/console/rollouts/mail-room/incidents/I-1").text
        headlines.append(re.search(r'</h1>\s*<p class="lede">(.*?)</p>', text, re.DOTALL)[1])
        played(demo, player, HOUR)
    allowed = ("<strong>cases with form = new", "No cause is found yet")
    assert not [headline for headline in headlines if not any(part in headline for part in allowed)]


def sign_in(demo, name):
    session = demo.service.sign_in.start_demo_session(name, at=demo.service.wall_clock.now())
    browser = Asking(create_app(demo.service), base_url="http://127.0.0.1")
    browser.cookies.set("rollout", session.token)
    return browser


def test_the_narrowings_cause_is_a_click_from_the_overview(demo):
    """The figures are those of the cases that the demo's salts draw for humans."""
    browser = sign_in(demo, "ana")
    overview = browser.get("/console/").text
    text = browser.get(re.search(r'href="(/console[^"]*/incidents/I-1)"', overview)[1]).text
    headline = re.search(r'</h1>\s*<p class="lede">(.*?)</p>', text, re.DOTALL)[1]
    headline = re.sub(r' <span class="soft nowrap">.*?</span>|<[^>]*>', "", headline)
    assert headline == (
        "Since Mon 20 Oct 06:09 WEST, cases with form = new, which did not occur before, differ in"
        " 9 of 25 (36.0\u00a0%, 16.1 to 60.2\u00a0%); other cases in the same time in 1 of 5,"
        " before in 1 of 138. Whether other cases differ as much now can’t be told yet."
    )
    assert "is+form=new" in text
    row = re.search(r"<tr[^>]*>(?:(?!</tr>).)*form = new(?:(?!</tr>).)*</tr>", text, re.DOTALL)[0]
    assert "16.1 to 60.2" in row, "the sentence has the interval of the table"
    assert "New: can’t be told yet" in row
    assert "Could be chance" not in row


def test_the_history_has_what_clients_had_sent(demo, letters):
    ana = asking(demo, "ana")
    assert LIVE_FROM - HOUR < letters[demo.next_case - 1].at <= LIVE_FROM
    assert len(ana.get(f"{ROLLOUT}/cases", params={"limit": 1000}).json()["items"]) == 1000
    case = ana.get(f"{ROLLOUT}/cases/{letters[0].key}").json()
    assert case["predictions"][0]["decider"] == "human"
    assert case["decisions"]
    assert case["actions"][0]["by"] == "person"
    assert case["outcomes"]
    acted = [letter.key for letter in letters[demo.next_case - 200 : demo.next_case]]
    found = (ana.get(f"{ROLLOUT}/cases/{key}").json()["actions"] for key in acted)
    by_model = [action for actions in found for action in actions if action["by"] == "model"]
    assert by_model
    assert {action["authorization"] for action in by_model} == {"authorized"}


def test_reviewers_find_undecided_letters_with_a_picture_each(demo, letters):
    service, now = demo.service, demo.clock.now()
    session = service.sign_in.start_demo_session("rui", at=service.wall_clock.now())
    browser = Asking(create_app(service), base_url="http://127.0.0.1")
    browser.cookies.set("rollout", session.token)
    browser.headers |= {"Sec-Fetch-Site": "same-origin", "X-CSRF-Token": session.csrf}
    claims = browser.post(f"{ROLLOUT}/reviews/claims", json={"claims": 5}).json()
    assert len(claims["tasks"]) == 5
    assert sum(claims["waiting"].values()) >= 3
    by_key = {letter.key: letter for letter in letters}
    for task in claims["tasks"]:
        assert task["media"]["picture"].startswith("data:image/png;base64,")
        letter = by_key[task["case"]]
        assert all(decision.at > now for decision in letter.decisions)


def test_a_history_is_built_once_and_left_alone(history, out, letters, records):
    before = {path: path.stat().st_mtime_ns for path in history.folder.iterdir()}
    again = prepare_history(
        out, EXAMPLE, records, letters, lambda: pytest.fail("it is built again")
    )
    assert again == history
    with open_stage(records.policy, LIVE_FROM) as stage:
        asking(stage.open_history(history), "ana").post(f"{ROLLOUT}/stops", json={"all": True})
    assert {path: path.stat().st_mtime_ns for path in history.folder.iterdir()} == before


def test_two_first_starts_at_once_leave_each_other_alone(tmp_path, letters, records, monkeypatch):
    both_build = threading.Barrier(2, timeout=60)

    def build(folder, *_):
        (folder / stage.DATABASE_FILE).write_text(folder.name)
        both_build.wait()  # each has removed what it takes for old
        (folder / stage.SCHEDULE_FILE).write_text(folder.name)

    monkeypatch.setattr(stage, "_build_history", build)
    with ThreadPoolExecutor() as threads:
        starts = [
            threads.submit(prepare_history, tmp_path, EXAMPLE, records, letters, lambda: None)
            for _ in range(2)
        ]
        first, second = (start.result() for start in starts)
    assert first == second
    assert first.is_complete
    assert [path.name for path in tmp_path.iterdir()] == [first.folder.name]
    texts = {path.read_text() for path in first.folder.iterdir()}
    assert len(texts) == 1  # both files are of one build


def test_a_first_start_removes_older_histories_and_what_was_interrupted(
    tmp_path, letters, records, monkeypatch
):
    hour_ago = time.time() - stage.UNFINISHED_SECONDS - 1
    for name in ("live-history-mail-room-old", "unfinished-history-old", "unfinished-history-new"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / "unfinished-history-old", (hour_ago, hour_ago))

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "_build_history", fail)
    with pytest.raises(KeyboardInterrupt):
        prepare_history(tmp_path, EXAMPLE, records, letters, lambda: None)
    assert [path.name for path in tmp_path.iterdir()] == ["unfinished-history-new"]


def test_traffic_goes_on_where_the_history_ends(demo, letters, records):
    player = begun(demo, letters, records)
    played(demo, player, 4 * HOUR)
    ana = asking(demo, "ana")
    newest = letters[demo.next_case + player._next_case - 1]
    case = ana.get(f"{ROLLOUT}/cases/{newest.key}").json()
    assert case["predictions"]
    with demo.service.database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "mail-room").rollout
        ids = ExternalKeys(transaction, rollout).find_ids([newest.key]).values()
        (stored,) = NewestRecords(transaction, rollout).load_cases(ids).values()
    assert stored.media["picture"].startswith("data:image/png")
    said = list(LedgerNarrator(demo.service.database, demo.policy, LIVE_FROM).describe_news())
    assert any("lisbon day: v1 narrowed to shadow" in line for line in said)
    assert all(re.match(r" *\w{3} \d+ \w{3} \d\d:\d\d [A-Z]{3,4}  ", line) for line in said)
    assert not any("records counted" in line for line in said)


def test_two_approvals_and_one_in_spite_of_the_next_narrowing_widen_at_the_next_hour(
    demo, letters, records
):
    (ana, player), bo = raise_anew(demo, letters, records), asking(demo, COLLEAGUE)
    (proposal,) = open_proposals(ana)
    for client in (ana, bo):
        approve(client, proposal)
    played(demo, player, HOUR)
    (waiting,) = open_proposals(ana)
    assert [wait["text"] for wait in waiting["waits_for"]] == [
        "an approver who wants it in spite of I-2"
    ]
    approve(ana, waiting)
    played(demo, player, HOUR)
    stages = {
        (row["site"], row["window"]): row["stage"]
        for row in ana.get(f"{ROLLOUT}/cells").json()["items"]
    }
    cell = (proposal["site"], proposal["window"])
    assert stages[cell] == proposal["to"]
    assert f"{proposal['id']} ({' · '.join(cell)})" in text_of("docs/demo.md")


def test_a_colleague_approves_after_four_hours_and_leaves_the_last_approval(demo, letters, records):
    ana, _ = raise_anew(demo, letters, records)
    colleague = DemoApprover(
        asking(demo, COLLEAGUE), "mail-room", timedelta(hours=4), leaves_last=True
    )
    (waiting,) = open_proposals(ana)
    raised_at = datetime.fromisoformat(waiting["raised_at"])
    colleague.approve_due(raised_at + 3 * HOUR)
    assert [found["approvals_missing"] for found in open_proposals(ana)] == [2]
    colleague.approve_due(raised_at + 4 * HOUR)
    assert [found["approvals_missing"] for found in open_proposals(ana)] == [1]


def test_something_to_approve_is_there_within_moments_even_when_paused(demo):
    ana, bo, seconds = asking(demo, "ana"), asking(demo, COLLEAGUE), [0.0]
    maker = DemoColleague(asking(demo, COLLEAGUE), demo.policy, lambda: seconds[0])
    helper = DemoApprover(
        asking(demo, RESUME_APPROVER), "mail-room", timedelta(0), frozenset({RESUME})
    )
    for turn in range(4):
        for proposal in open_proposals(ana):
            if turn == 0:
                approve(bo, proposal) if proposal["approvals_missing"] == 2 else None
            approve(ana, proposal)
        waited = 0
        while not open_proposals(ana) or not open_proposals(ana)[0]["approvals_missing"]:
            maker.keep_something_to_approve()
            seconds[0] += 1
            waited += 1
            assert waited <= QUIET_SECONDS + 2
        (resume,) = [found for found in open_proposals(ana) if found["approvals_missing"]]
        assert resume["kind"] == RESUME
        helper.approve_due(demo.clock.now())
    stops = ana.get(f"{ROLLOUT}/stops").json()["items"]
    assert len({stop["id"] for stop in stops}) == 4
    assert set(DEMO_OPERATORS) == {"ana", "bo"}


def test_an_operator_asks_for_one_report_soon_after_the_first_pages(demo):
    """Made with the history, it took a seventh of a first start."""
    ana, seconds = asking(demo, "ana"), [0.0]
    reporter = WeeklyReporter(ana, "mail-room", LIVE_FROM.replace(hour=0), lambda: seconds[0])
    reporter.request_due_report()
    assert ana.get(f"{ROLLOUT}/reports").json()["items"] == []
    for _ in range(2):
        seconds[0] += REPORT_SECONDS
        reporter.request_due_report()
        reporter.request.join()
        (report,) = ana.get(f"{ROLLOUT}/reports").json()["items"]
        assert (report["name"], report["version"]) == ("week", 1)


def test_the_story_goes_on_while_the_report_is_made():
    """Made in between, it held the story for more than a minute on a busy machine."""
    made, requests = threading.Event(), []

    def make(request):
        assert made.wait(60), "whoever asked waits for the report"
        requests.append(request)
        return httpx2.Response(201, json={})

    client = httpx2.Client(base_url="http://demo", transport=httpx2.MockTransport(make))
    reporter = WeeklyReporter(client, "mail-room", LIVE_FROM, lambda: 0.0)
    reporter.read_seconds = lambda: REPORT_SECONDS
    for _ in range(2):
        reporter.request_due_report()
    assert requests == []
    made.set()
    reporter.request.join()
    assert len(requests) == 1


def test_a_report_that_a_busy_service_refused_is_asked_for_again(monkeypatch):
    monkeypatch.setattr("rollout.features.demo.player.sleep", lambda _seconds: None)
    answers = [httpx2.Response(503)] * MAX_TRIES + [httpx2.Response(201, json={})]
    transport = httpx2.MockTransport(lambda _request: answers.pop(0))
    with httpx2.Client(base_url="http://demo", transport=transport) as client:
        reporter = WeeklyReporter(client, "mail-room", LIVE_FROM, lambda: 0.0)
        reporter.read_seconds = lambda: REPORT_SECONDS
        for _ in range(2):
            reporter.request_due_report()
            while answers and reporter.request is not None:
                time.sleep(0.01)
        assert answers == []


def test_after_the_end_of_the_demo_nobody_waits_for_its_report():
    """The thread's own error would fail this test."""
    client = httpx2.Client(base_url="http://demo")
    reporter = WeeklyReporter(client, "mail-room", LIVE_FROM, lambda: 0.0)
    client.close()
    reporter.read_seconds = lambda: REPORT_SECONDS
    reporter.request_due_report()
    while reporter.request is not None:
        time.sleep(0.01)


def test_a_stop_of_a_user_is_what_the_colleague_asks_for_first(demo):
    ana, seconds = asking(demo, "ana"), [0.0]
    for proposal in open_proposals(ana):
        ana.post(f"{ROLLOUT}/proposals/{proposal['id']}/rejection", json={"reason": "not now"})
    stopped = ana.post(f"{ROLLOUT}/stops", json={"sites": ["hobart"], "reason": "look"})
    stop = stopped.json()["active_stops"][0]["id"]
    maker = DemoColleague(asking(demo, COLLEAGUE), demo.policy, lambda: seconds[0])
    maker.keep_something_to_approve()
    seconds[0] = QUIET_SECONDS
    maker.keep_something_to_approve()
    found = [proposal for proposal in open_proposals(ana) if proposal["kind"] == RESUME]
    assert [proposal["about"] for proposal in found] == [stop]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_clients_of_this_machine_read_no_certificates(demo, monkeypatch):
    monkeypatch.setattr(ssl, "create_default_context", None)
    with open_clients(demo, "http://127.0.0.1:1") as clients:
        assert set(clients) == set(demo.keys)


@pytest.mark.enable_socket  # the demo serves on this machine
def test_the_page_is_what_the_command_prints_and_control_c_ends_it_at_once(history):
    port, page = free_port(), text_of("docs/demo.md")
    (line,) = [line for block in BLOCK.findall(page) for line in block.splitlines() if line]
    words = ["-c", "from rollout.cli.main import app; app()", *line.split()[1:]]
    words += ["--port", str(port), "--out", str(history.folder.parent)]
    command = [sys.executable, *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as process:
        try:
            said = ""
            while "Ctrl-C ends the demo" not in said:
                said += process.stdout.readline()
                assert process.poll() is None, said
            links = dict(re.findall(r"^  (\w+) +\w+ +(http\S+)$", said, re.MULTILINE))
            shown = re.search(r"```text\n(.*?)```", page, re.DOTALL)[1]
            assert shown.replace("8000", str(port)) in said
            assert list(links) == re.findall(r"`(\w+)`", page[page.index("## Sign in") :])[:5]
            with httpx2.Client(follow_redirects=True, timeout=60) as client:  # on a busy machine
                assert "1 pending task" in client.get(links["ana"]).text
            time.sleep(REPORT_SECONDS + 2)  # the week's report is being made
        finally:
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            process.wait(timeout=20)
        assert "Traceback" not in process.stderr.read()
    assert time.monotonic() - started < 5  # on a busy machine; half a second on an idle one
    assert process.returncode == 130
