"""Names of digits stand on pages, in reports and answers as they were typed.

A site `0001234`, a key `1000002` or a version `v1` is no figure and begins no sentence: wherever
a figure gets separators and a sentence its capital letter, names keep their characters.
"""

import json
import re
from contextlib import contextmanager
from unittest import mock

import pytest

from api.web_kit.page_context import TOKEN_FIELD
from rollout.engine.decide.commands import OpenIncident
from rollout.engine.decide.permissions import Caller
from rollout.engine.decide.stops import StopTarget
from rollout.features.stops.stops import stop_cells
from rollout.kernel.calendar.instants import Cell
from rollout.live.rollout_state import execute_command
from tests.browser import town as towns
from tests.browser.town import approve, town
from tests.console.conftest import token_of
from tests.console.incidents.attacked_town import browsing, sent
from tests.console.test_every_page import crawled
from tests.console.web_kit import test_console_worlds as worlds
from tests.data.databases import fresh

pytestmark = pytest.mark.exhaustive

NAMES = {
    "creek": "0001234", "lake": "lis-007056", "dale": "2026001", "day": "0007200",
    "night": "0007201", "bear": "1234567", "none": "7654321", "siren": "0004321",
    "nothing": "5000000", "rory": "3000001", "c0": "0009876", "c1": "1009876", "c2": "2009876",
}  # fmt: skip
"""What the town's names are here."""
AGREEMENT_GUARD = "{measure: agreement, at_least: 60%, false_alarm_every: 100}"
RECALL_GUARD = "{measure: recall, label: bear, at_least: 60%, false_alarm_every: 20}"
SECOND_VERSION = "4000001"
REASON = "v1 misread 1234567 of 7654321 at lis-007056"
OBJECTIVE = "v1 warns campers"
ACTED = "v1 acted on 1000002: no permit"
NAME = re.compile(rf"\b({'|'.join(NAMES)})\b")
QUOTED_NAME = re.compile(rf'"({"|".join(NAMES)})"')
TOWN_KEY = re.compile(r'"(?:creek|lake|dale)-(\d+)"')
DIGITS = re.compile(r"\d{4,}")
RAISED = ("V1", "Lis-")
ASKED_ABOUT = {
    "key": "1000002", "site": NAMES["creek"], "window": NAMES["day"], "version": SECOND_VERSION,
}  # fmt: skip


def name_key(number):
    """Return the key of a case: digits alone, or digits after the letters of a site."""
    return f"lis-{number:06d}" if number % 2 else f"{1_000_000 + number}"


def rename_items(items):
    """Return records with other names, each prediction also as the second version's."""
    text = TOWN_KEY.sub(lambda match: json.dumps(name_key(int(match[1]))), json.dumps(items))
    renamed = json.loads(QUOTED_NAME.sub(lambda match: json.dumps(NAMES[match[1]]), text))
    predictions = [item for item in renamed if item["kind"] == "prediction"]
    return [*renamed, *({**item, "version": SECOND_VERSION} for item in predictions)]


def rename_policy():
    """Return the town's policy with other names."""
    text = towns.POLICY.replace(json.dumps(towns.ODD), towns.PLAIN)
    text = text.replace(AGREEMENT_GUARD, RECALL_GUARD).replace("Warn campers", OBJECTIVE)
    return NAME.sub(lambda match: json.dumps(NAMES[match[1]]), text)


@contextmanager
def renamed_town(folder):
    """Give a browser of a town of other names, with a widening, an alarm and a stop."""
    creek = ("creek",)
    with (
        mock.patch("api.limits.ANONYMOUS_BURST", 1e9),
        mock.patch.object(towns, "POLICY", rename_policy()),
        fresh("sqlite", folder) as url,
        town(url, odd=False) as made,
    ):
        send = made.send
        with mock.patch.object(made, "send", lambda *items: send(*rename_items(items))):
            made.play_hours(10)
            approve(made, NAMES["creek"])
            made.play_hours(1)
            made.play_hours(8, sites=creek, right=0.0)
            made.play_hours(2)
            ana = Caller("ana", role_assignments=towns.PEOPLE["ana"])
            target = StopTarget(cells=(Cell(NAMES["lake"], NAMES["day"]),))
            stop_cells(made.database, ana, "bears", target, at=made.clock.now(), reason=REASON)
            at = made.clock.now()
            reported = OpenIncident(at=at, kind="unauthorized", reason=ACTED, about="1000002")
            execute_command(made.database, "bears", lambda _: reported)
            made.play_hours(1)
            made.waits(3)
        with browsing(made) as browser:
            yield browser


def read_report(browser):
    """Yield each form of a new report, with its page."""
    fields = {TOKEN_FIELD: token_of(browser.page("/glossary")), "rollout": "bears", "name": "now"}
    report = sent(browser, "/console/reports", fields).headers["location"].removesuffix("/about")
    for path in (report, *(f"{report}/file?form={form}" for form in ("json", "csv"))):
        answer = browser.get(path)
        assert answer.status_code == 200, path
        yield path, answer.text


def list_figures(digits):
    """Return names of digits as if they were counts."""
    figures = {f"{int(name):,}" for name in digits} | {
        f"{name[:-3]},{name[-3:]}" for name in digits
    }
    return sorted(figure for figure in figures if "," in figure)


def test_names_of_digits_stand_as_typed_on_every_page_report_and_answer(tmp_path):
    texts = {}
    with renamed_town(tmp_path) as browser:
        for name in ("ana", "rita"):
            texts |= {(name, path): answer.text for path, answer, _ in crawled(browser, name)}
        browser.as_("vic")
        texts |= {("report", path): text for path, text in read_report(browser)}
        with mock.patch.dict(worlds.ASKED_ABOUT, ASKED_ABOUT):
            questions = worlds.list_questions(browser.app)
        texts |= {("API", path): browser.get(path).text for path in questions}
    keys = [name_key(number) for number in range(1, 1_000)]
    digits = DIGITS.findall(" ".join([*NAMES.values(), SECOND_VERSION, REASON, *keys]))
    rewritten = re.compile(rf"\b({'|'.join([*RAISED, *list_figures(digits)])})\b")
    found = {
        (*where, text[max(0, at.start() - 60) : at.end() + 40])
        for where, text in texts.items()
        for at in rewritten.finditer(text)
    }
    assert sorted(found) == []
    assert "recall of 1234567 at least 60" in texts["ana", "/console/incidents"].lower()
    everything = "\n".join(texts.values())
    assert [name for name in (*NAMES.values(), SECOND_VERSION) if name not in everything] == []
    assert everything.count(REASON) > 5
    assert ACTED in texts["ana", "/console/incidents"]
    assert sum(f"{OBJECTIVE}." in text for text in texts.values()) > 0
