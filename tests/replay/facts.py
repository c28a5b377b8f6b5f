"""What a replay's report says."""

from rollout.reports.figures.facts import ReportFacts, compute_report_facts
from rollout.services.replay.replay import ReplayedFiles, build_replay_inputs


def compute_replay_facts(replayed: ReplayedFiles) -> ReportFacts:
    """Return the facts of a replay's report."""
    return compute_report_facts(build_replay_inputs(replayed))
