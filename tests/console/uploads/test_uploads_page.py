"""The page of uploaded files: who gets it, a run that is left and cancelled, and who means ill."""

import sys
from html import unescape

import pytest

from api.web_kit.page_context import TOKEN_FIELD
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import users
from rollout.features.uploads.upload_runs import (
    COMMAND,
    COMMANDS_TEXT,
    MAX_FILE_BYTES,
    UploadFolder,
    UploadRuns,
)
from tests.api.bears import POLICY
from tests.console.conftest import token_of
from tests.factories import NOON
from tests.features.houses import PASSWORD
from tests.features.uploads.test_upload_runs import wait_until
from tests.recorded import write_records

PATH = "/files"
BROKEN = (sys.executable, "-c", "")
FAILING = """
import json
input()
print(json.dumps({"error": "predictions.csv: no column case_key <b>"}))
"""
ENDLESS = (sys.executable, "-c", "import sys; sys.stdin.read()")
MARK = "zebra-finch"
"""In every case key that is uploaded."""


@pytest.fixture
def commands():
    return []


@pytest.fixture(autouse=True)
def made_runs(monkeypatch, tmp_path, commands):
    """Let no run come to an end, unless a test sets the real command."""
    made = []

    def make(folder):
        made.append(
            UploadRuns(UploadFolder(tmp_path / "uploads"), commands[-1] if commands else ENDLESS)
        )
        return made[-1]

    monkeypatch.setattr("api.console.UploadRuns", make)
    yield made
    for runs in made:
        runs.close()


@pytest.fixture
def records(tmp_path):
    write_records(tmp_path, cases=400)
    names = ("predictions", "decisions")
    return {
        name: (tmp_path / f"{name}.csv").read_text("utf-8").replace("c-00", f"{MARK}-")
        for name in names
    }


def upload(browser, files, status=303, *, token=None, **fields):
    """Send the form of the page; return the answer."""
    token = token_of(browser.page(PATH)) if token is None else token
    answer = browser.post(
        f"/console{PATH}",
        data={TOKEN_FIELD: token, **fields},
        files={name: (f"../../{name}.csv", text) for name, text in files.items()},
        follow_redirects=False,
    )
    assert answer.status_code == status, (answer.status_code, answer.text[-900:])
    return answer


def stored_files(tmp_path):
    return [path for path in (tmp_path / "uploads").rglob("*.csv*") if path.is_file()]


def wait_for_end(browser):
    wait_until(lambda: "refresh" not in browser.get(f"/console{PATH}").headers)


@pytest.mark.slow
def test_operators_engineers_and_admins_get_the_page_and_nobody_else(
    browser, service, records, tmp_path
):
    ada = users.load_local_caller(service.database, "ada")
    engineer = (AssignedRole("ingest-predictions", "bears"), AssignedRole("viewer", "bears"))
    users.create_account(service.database, ada, "eve", at=NOON, role_assignments=engineer)
    service.sign_in.set_password(ada, "eve", PASSWORD, at=NOON)
    service.authenticator.refresh()
    token = ""
    for name in ("ada", "ana", "cleo", "eve"):
        assert "Send two files" in browser.as_(name).page(PATH)
        assert 'href="/console/files"' in browser.page("/settings")
    for name in ("rita", "vic", "sue"):
        assert "Send two files" not in browser.as_(name).page(PATH, 403)
        assert 'href="/console/files"' not in browser.page("/settings")
        token = token_of(browser.page("/settings"))
        upload(browser, records, 403, token=token)
        browser.page("/files/policy", 403)
        browser.page("/files/report", 403)
    assert not stored_files(tmp_path)
    page = unescape(browser.page(PATH, 403))
    assert "may not upload recorded files; it needs the role admin or ingest" in page


@pytest.mark.slow
def test_two_files_become_a_policy_a_plan_and_a_report(
    browser, commands, records, tmp_path, caplog
):
    commands.append(COMMAND)
    caplog.set_level("DEBUG")
    upload(browser.as_("ana"), records, name="ramps")
    wait_for_end(browser)
    page = unescape(browser.page(PATH))
    assert "The run failed" not in page
    for heading in ("The policy draft", "What it needs, in decisions and days", "How it was made"):
        assert heading in page
    assert "Plan of ramps" in page
    assert "predictions.csv: 400 rows read, 400 used" in page.replace("\N{NO-BREAK SPACE}", " ")
    answer = browser.get(f"/console{PATH}/policy")
    assert answer.text in page
    assert answer.text.startswith("#") or "rollout: ramps" in answer.text
    assert answer.headers["content-disposition"] == 'attachment; filename="policy.yaml"'
    assert "sandbox" in answer.headers["content-security-policy"]
    report = browser.get(f"/console{PATH}/report")
    assert "<h1" in report.text
    assert "sandbox" in report.headers["content-security-policy"]
    assert "script-src" not in report.headers["content-security-policy"]
    assert report.headers["cache-control"] == "no-store"
    assert not stored_files(tmp_path)
    bases = [path for path in tmp_path.iterdir() if path.suffix in {".db", ".db-wal"}]
    assert bases
    assert all(MARK.encode() not in path.read_bytes() for path in bases)
    assert MARK not in caplog.text
    for path in ("", "/policy", "/report"):  # a result is its user's own
        answer = browser.as_("bo").get(f"/console{PATH}{path}")
        assert answer.status_code == 200
        assert "has no run of yours" in answer.text
        assert "Plan of ramps" not in answer.text


def test_a_run_is_left_found_again_and_cancelled(browser, records, tmp_path):
    upload(browser.as_("ana"), records)
    assert len(stored_files(tmp_path)) == 2
    assert {path.name for path in stored_files(tmp_path)} == {"predictions.csv", "decisions.csv"}
    browser.as_("ana")
    answer = browser.get(f"/console{PATH}")
    assert answer.headers["refresh"] == "3"
    assert "You can leave this page" in answer.text
    assert "Send two files" in browser.as_("bo").page(PATH)
    page = unescape(
        upload(browser.as_("ana"), records, 422, token=token_of(browser.as_("ana").page(PATH))).text
    )
    assert "Refused: a run of yours is not done" in page
    assert COMMANDS_TEXT in page
    assert len(stored_files(tmp_path)) == 2
    browser.submit(PATH, cancel="yes")
    answer = browser.get(f"/console{PATH}")
    assert "refresh" not in answer.headers
    assert "Send two files" in answer.text
    wait_until(lambda: not stored_files(tmp_path))


@pytest.mark.slow
def test_kept_files_run_again_with_a_policy_of_the_user(browser, commands, records, tmp_path):
    commands.append(BROKEN)
    upload(browser.as_("ana"), records, keep="yes")
    wait_for_end(browser)
    assert len(stored_files(tmp_path)) == 2
    wrong = browser.submit(PATH, 422, text=POLICY.replace("sites:", "sights:")).text
    assert "listed with lines below" in wrong
    assert "sights:" in wrong
    browser.submit(PATH, text=POLICY, delimiter=";")
    wait_for_end(browser)
    page = browser.page(PATH)
    assert "rollout: bears" in page, "what was run stays"
    assert '<option value=";" selected>' in page
    assert len(stored_files(tmp_path)) == 2
    browser.submit(PATH, cancel="yes")
    assert not stored_files(tmp_path)
    assert "Send two files" in browser.page(PATH)
    assert "are deleted; choose them again" in browser.submit(PATH, 422, name="ramps").text


def test_a_run_that_fails_says_why(browser, commands, records):
    commands.append((sys.executable, "-c", FAILING))
    upload(browser.as_("ana"), records, name="<b>", timezone="UTC")
    wait_for_end(browser)
    page = browser.page(PATH)
    assert "The run failed" in page
    assert "predictions.csv: no column case_key &lt;b&gt;" in page
    assert 'value="&lt;b&gt;"' in page, "what was typed stays"
    for file in ("policy", "report"):
        answer = browser.get(f"/console{PATH}/{file}", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/console{PATH}")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"decisions": None}, "Refused: choose two files that are not empty"),
        ({"decisions": ""}, "Refused: choose two files that are not empty"),
        (
            {"predictions": "x" * (MAX_FILE_BYTES + 1)},
            "Refused: a file has at most 20 MB here, and predictions.csv",
        ),
        ({"more": "x"}, "not a form of the console"),
    ],
    ids=["one file", "empty", "large", "unknown"],
)
def test_files_that_cant_be_taken_are_refused_and_deleted(browser, records, change, text, tmp_path):
    files = {
        name: content for name, content in {**records, **change}.items() if content is not None
    }
    page = unescape(upload(browser.as_("ana"), files, 422).text).replace("\N{NO-BREAK SPACE}", " ")
    assert text in page
    assert not stored_files(tmp_path)
    upload(browser, records)


def test_a_disk_that_fails_is_said_and_logged(browser, records, tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(UploadFolder, "create_upload", fail)
    page = unescape(upload(browser.as_("ana"), records, 422).text)
    assert (
        "Refused: the service could not store the files: its disk is full or fails; tell who"
        in page
    )
    assert COMMANDS_TEXT in page
    assert "No space left on device" in caplog.text


def test_a_file_that_comes_twice_is_no_form_of_the_page(browser, tmp_path):
    token = token_of(browser.as_("ana").page(PATH))
    answer = browser.post(
        f"/console{PATH}",
        data={TOKEN_FIELD: token},
        files=[("predictions", ("a.csv", "")), ("predictions", ("b.csv", "a,b"))],
        follow_redirects=False,
    )
    assert answer.status_code == 422
    assert "reload the page" in answer.text
    assert not stored_files(tmp_path)


@pytest.mark.parametrize("fields", [{"exposure": "seen"}, {"delimiter": "x"}, {"percent": "maybe"}])
def test_options_that_the_page_does_not_have_are_refused(browser, records, fields, tmp_path):
    assert "not a form" in upload(browser.as_("ana"), records, 422, **fields).text
    assert not stored_files(tmp_path)


def test_nothing_is_stored_without_the_pages_token(browser, records, tmp_path, made_runs):
    browser.as_("bo")
    theirs = token_of(browser.page("/glossary"))
    browser.as_("ana")
    mine = token_of(browser.page(PATH))
    for token in ("", "nonsense", theirs):
        upload(browser, records, 403, token=token)
    for where in ("cross-site", "same-site"):
        browser.headers["Sec-Fetch-Site"] = where
        upload(browser, records, 403, token=mine)
    browser.headers["Sec-Fetch-Site"] = "same-origin"
    browser.cookies.clear()
    answer = upload(browser, dict.fromkeys(records, "a"), 401, token=mine)
    assert "You are signed out, and nothing was sent" in answer.text
    assert not list((tmp_path / "uploads").rglob("*"))


def test_a_token_after_the_files_comes_too_late(browser, records, tmp_path):
    browser.as_("ana")
    token = token_of(browser.page(PATH))
    parts = [
        ('name="predictions"; filename="p"', "a"),
        (f'name="{TOKEN_FIELD}"', token),
    ]
    heads = [
        f"--xYz\r\nContent-Disposition: form-data; {name}\r\n\r\n{text}" for name, text in parts
    ]
    headers = {"Content-Type": "multipart/form-data; boundary=xYz"}
    answer = browser.post(
        f"/console{PATH}", content="\r\n".join([*heads, "--xYz--"]), headers=headers
    )
    assert answer.status_code == 403
    assert not list((tmp_path / "uploads").rglob("*"))


def test_a_large_body_is_let_through_to_this_page_alone(browser, records):
    """Elsewhere the service's limit holds: 8 MiB."""
    browser.as_("ana")
    token = token_of(browser.page(PATH))
    big = {"predictions": ("p.csv", "x" * 9 * 2**20)}
    for path in ("/stop", "/files/policy", "/new"):
        answer = browser.post(f"/console{path}", data={TOKEN_FIELD: token}, files=big)
        assert answer.status_code == 413, path
    answer = browser.post(f"/console{PATH}", data={TOKEN_FIELD: token, "text": "x" * 9 * 2**20})
    assert answer.status_code == 413, "a form without files"
