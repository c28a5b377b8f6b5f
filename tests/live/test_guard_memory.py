"""What guards observed: which of it they may still use."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.live.evidence.guard_memory import GuardMemory, GuardObservations, LiveSiteSigns

TICK = 10
KEY = ("creek", "night", "v1")


@given(
    slots=st.lists(st.integers(-3, 8), max_size=8).map(sorted),
    since=st.integers(-40, 90),
    dropped=st.sets(st.integers(0, 8)),
)
def test_guards_use_what_became_known_a_slot_after_a_time_and_no_dropped_case(
    slots, since, dropped
):
    ids = np.arange(len(slots), dtype=np.int64)
    known = np.array(slots, dtype=np.int64)
    observed = GuardObservations(known, known, ids, np.zeros(len(slots), dtype=bool))
    memory = GuardMemory({"late": {KEY: observed}}, LiveSiteSigns())
    left_out = np.array(sorted(dropped), dtype=np.int64)
    used = memory.select(left_out, since=since, tick=TICK, silence_span=None)
    expected = [
        number for number, slot in enumerate(slots)
        if slot * TICK >= since + TICK and number not in dropped
    ]  # fmt: skip
    part = used.observations["late"][KEY]
    assert part.case_ids.tolist() == expected
    assert part.slots.tolist() == [slots[number] for number in expected]


@pytest.mark.parametrize("site_count", [2, 40])
def test_cases_are_added_site_by_site_without_a_query_for_each(site_count, monkeypatch):
    queries, signs = [], LiveSiteSigns()
    sites = [f"s{number % site_count}" for number in range(80)]
    columns = dict.fromkeys(("occurred_us", "case_id", "unit_id", "window_id"), range(80))
    cases = pl.DataFrame({"site": sites, **columns})
    select = pl.DataFrame.select
    monkeypatch.setattr(
        pl.DataFrame, "select", lambda frame, *names: queries.append(1) or select(frame, *names)
    )
    signs.add_cases(cases)
    assert len(queries) <= 2
    assert {site: of.case_ids.tolist() for site, of in signs.cases.items()} == {
        site: [*range(number, 80, site_count)] for number, site in enumerate(sites[:site_count])
    }
