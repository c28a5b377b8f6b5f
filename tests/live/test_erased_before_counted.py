"""Cases are erased before they are counted: gates and guards count them as they stood."""

import pytest

from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.erasure.erasure import ErasureRequest, erase_case
from tests.data.databases import on_sqlite
from tests.live.guarded_desk import RIGHT, WIDENED

ADMIN = Caller(name="ada", is_service_account=False, role_assignments=(AssignedRole("admin"),))


def judge_and_erase(desk, **case):
    desk.judge(**case)
    request = ErasureRequest(ADMIN, "shop", "on request", desk.now)
    erase_case(desk.database, request, f"c{len(desk.cases) - 1}")


def pass_hours(desk, *, kept, erased):
    """Send two cases and erase a third in each of 12 hours; return what changed."""
    changes = []
    for _ in range(12):
        judge_and_erase(desk, **erased)
        changes += desk.pass_hours(1, *kept)
    return changes


@on_sqlite
def test_wrong_cases_that_are_erased_at_once_speak_against_widening(desk):
    assert pass_hours(desk, kept=(RIGHT, RIGHT), erased={"verdict": "high"}) == []


@pytest.mark.slow
@on_sqlite
def test_right_cases_that_are_erased_at_once_speak_for_widening(desk):
    assert pass_hours(desk, kept=(RIGHT,), erased=RIGHT) == WIDENED


@on_sqlite
def test_wrong_cases_that_are_erased_at_once_reach_the_guards(widened_desk):
    for _ in range(12):
        judge_and_erase(widened_desk, verdict="high")
    assert widened_desk.pass_hours(1) == ["Narrowed"]
