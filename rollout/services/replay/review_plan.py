"""The review plan of recorded files: what cells need where the records end."""

from rollout.reports.figures.review_plan import ReviewPlan, compute_review_plan
from rollout.reports.inputs.gate_progress import build_state_periods
from rollout.services.replay.replay import ReplayRequest, replay_files
from rollout.services.replay.replay_output import build_replay_inputs


def plan_recorded_reviews(request: ReplayRequest, decisions: int) -> ReviewPlan:
    """Replay recorded files and return where the next `decisions` help most.

    Raises:
        NothingToReplayError: no record can be evidence.
    """
    inputs = build_replay_inputs(replay_files(request))
    return compute_review_plan(inputs, build_state_periods(inputs), decisions)
