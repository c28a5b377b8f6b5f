"""What a copy with all additions has more, as JSON: `python story.py FOLDER`."""

import json
import sys
from dataclasses import replace
from pathlib import Path

from api.app import create_app
from rollout.data.database.migrations import upgrade
from rollout.data.database.session import Database
from rollout.features.access.authentication import Authenticator
from rollout.features.access.sign_in import SignIn
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.pages.html_report import render_html_report
from rollout.features.reports.pages.json_report import build_report_schema
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.clock import ManualClock
from rollout.live.service import build_service
from rollout.settings import read_settings
from tests.api.conftest import Asking, Doorkeeper
from tests.console.conftest import Browsing
from tests.docs import api_page, small_pages
from tests.factories import NOON
from tests.features.access.test_sign_in import QUICK
from tests.features.houses import PASSWORD, chance
from tests.features.notifications.mailing_list import ADMIN, ROLES, add_users
from tests.features.reports.alike_cases import often
from tests.features.reports.conftest import Case, inputs_of

POLICY = """
rollout: forest
timezone: UTC
levers: [{id: alarm, labels: [bear, fox]}]
sites: [creek]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
"""
ROUTE = "/v1/rollouts/{rollout}/training"
SOURCES = f"{ROUTE.format(rollout='bears')}/sources"


def ask_endpoint(database, clock):
    """Return what the added route answers a viewer, and somebody without a role."""
    door = Doorkeeper()
    door.let_in("vic", *ROLES["vic"])
    door.let_in("zoe")
    with Asking(create_app(build_service(database, door, clock))) as client:
        sources, refused = (client.by(name).get(SOURCES) for name in ("vic", "zoe"))
    return [sources.status_code, sources.json(), refused.status_code]


def open_page(database, clock):
    """Return the added page."""
    sign_in = SignIn(database, clock, chance, QUICK)
    sign_in.set_password(ADMIN, "vic", PASSWORD, at=NOON)
    service = replace(
        build_service(database, Authenticator(database, clock), clock), sign_in=sign_in
    )
    with Browsing(create_app(service), base_url="http://localhost:8000") as browser:
        browser.headers["Sec-Fetch-Site"] = "same-origin"
        page = browser.as_("vic").page("/rollouts/bears/purpose")
        browser.page("/rollouts/wolves/purpose", 404)
    return page


def main(folder):
    url = f"sqlite:///{folder / 'story.db'}"
    upgrade(url)
    database, clock = Database(url), ManualClock(NOON)
    add_users(database)
    api_page.RIGHTS[f"GET {ROUTE}/sources"] = api_page.RIGHTS[
        f"GET {ROUTE}"
    ]  # its row of the matrix
    cases = often(Case, 40, "b", human="bear", model={"v1": "bear"})
    facts = compute_report_facts(inputs_of(cases, parse_policy(POLICY)))
    story = {
        "endpoint": ask_endpoint(database, clock),
        "openapi": "listTrainingSources" in json.dumps(api_page.build_document()),
        "api_docs": f"{ROUTE}/sources" in api_page.written(),
        "page": open_page(database, clock),
        "setting": read_settings({"ROLLOUT_NICKNAME": "forest"}).nickname,
        "setting_docs": small_pages.write_settings(),
        "figure": facts.site_count.sites,
        "schema": "site_count" in json.loads(build_report_schema())["properties"],
        "report": render_html_report(facts, "engineer"),
    }
    json.dump(story, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
