"""The live demo, started cold in an empty home: users stay signed in, and two widen a cell."""

import time
from importlib.util import find_spec

import pytest

from tests.first_hour.demo_visit import OPERATORS, DemoVisit, open_browser, start_demo
from tests.first_hour.terminals import PATIENCE, terminals_in
from tests.first_hour.test_tutorial import free_port

SIGNED_IN_SECONDS = 40  # once, users were signed out after 30
END_SECONDS = 10  # for Ctrl-C, on a busy machine
pytestmark = pytest.mark.enable_socket  # the demo serves on this machine


@pytest.fixture
def terminals(tmp_path):
    with terminals_in(tmp_path) as opened:
        yield opened


def is_seen(visit):
    """Return whether a widening and a proposal of both operators' approvals were applied."""
    applied = visit.list_applied()
    has_both = any(visit.approvers_by_proposal[found] == list(OPERATORS) for found in applied)
    kinds = {visit.fetch_proposal(found)["kind"] for found in applied}
    return has_both and "widening" in kinds


def test_operators_stay_signed_in_and_their_approvals_take_effect(terminals):
    links = start_demo(terminals, free_port())
    with open_browser() as browser:
        visit = DemoVisit(links, browser)
        try:
            while visit.seconds < SIGNED_IN_SECONDS or not is_seen(visit):
                assert visit.seconds < SIGNED_IN_SECONDS + PATIENCE, visit.approvers_by_proposal
                visit.act()
            details = map(visit.fetch_proposal, visit.list_applied())
            widening = next(found for found in details if found["kind"] == "widening")
            grant = "{site} {window}: {version} widened to {to}".format_map(widening)
            terminals.output_of("demo").wait_until(
                lambda lines: any(grant in line for line in lines)
            )
            if browser and find_spec("axe_playwright_python"):
                assert visit.find_violations(browser, links) == {}
            for visitor in visit.visitors:
                visitor.open("/")
        finally:
            visit.close()
    pressed = time.monotonic()
    assert terminals.interrupt("demo")[-1] == "stopped; the demo has ended"
    assert time.monotonic() - pressed < END_SECONDS
    if browser is None:
        pytest.skip("no Chromium with playwright: tried over HTTP only")
