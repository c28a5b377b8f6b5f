"""What a replay's report says."""

from rollout.features.replay.replay import ReplayedFiles, build_replay_inputs
from rollout.features.reports.figures.facts import ReportFacts, compute_report_facts


def compute_replay_facts(replayed: ReplayedFiles) -> ReportFacts:
    """Return the facts of a replay's report."""
    return compute_report_facts(build_replay_inputs(replayed))
