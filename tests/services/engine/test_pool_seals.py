"""A proposal's digest covers all cells whose units its gate counts."""

from dataclasses import replace

import pytest

from rollout.core.calendar.sites import Cell
from rollout.core.scope.events import ProposalRaised
from rollout.formats.policy.reader import parse_policy
from rollout.services.engine.evidence_seals import add_digest
from rollout.store.counting.unit_digests import CellDigests
from rollout.tally.outcome_buffer import CountedOutcome
from tests.core.policy.test_pools import build_text
from tests.factories import NOON

DAY = Cell("shop", "day")
PROPOSAL = ProposalRaised(
    at=NOON, by="engine", proposal="p", kind="widening", expires_at=NOON, needs=(),
    evidence_hash="", cell=DAY, version="v1", to_stage="half",
)  # fmt: skip


def compute_digest(pool, changed_cell, to_stage="half"):
    """Return a proposal's digest, where one cell's only unit has another score."""
    policy = parse_policy(build_text(pool))
    digests = CellDigests()
    for cell in policy.cells:
        score = 0.9 if f"{cell.site}/{cell.window}" == changed_cell else 0.5
        digests.add_outcome(
            CountedOutcome(
                1, "v1", "profit", 1, 9, 1, cell.site, cell.window, "", 2, None, score, 1.0, b""
            )
        )
    return add_digest(replace(PROPOSAL, to_stage=to_stage), digests, policy).records_digest


@pytest.mark.parametrize(
    ("pool", "to_stage", "cell", "is_covered"),
    [
        ("site", "half", "shop/day", True),
        ("site", "half", "shop/night", True),
        ("site", "half", "kiosk/night", False),
        ("rollout", "half", "kiosk/night", True),
        ("cell", "half", "shop/night", False),
        ("rollout", "trial", "shop/night", False),
    ],
)
def test_a_digest_covers_the_cells_that_were_counted(pool, to_stage, cell, is_covered):
    before = compute_digest(pool, "", to_stage)
    assert (compute_digest(pool, cell, to_stage) != before) is is_covered
