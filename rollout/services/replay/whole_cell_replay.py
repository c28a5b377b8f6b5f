"""The same records with one gate for each cell, to compare with confidence floors."""

from dataclasses import replace

from rollout.reports.inputs.inputs import ReportInputs
from rollout.services.replay.replay import Progress, ReplayedFiles, replay_records
from rollout.services.replay.replay_output import build_record_inputs


def add_whole_cell_replay(
    inputs: ReportInputs, replayed_files: ReplayedFiles, progress: Progress | None = None
) -> ReportInputs:
    """Return the inputs with a replay that counts all cases at one gate.

    A policy without several confidence floors has that gate already: its inputs stay as they are.
    """
    policy = replayed_files.policy
    if not policy.evidence.higher_floors:
        return inputs
    evidence = replace(policy.evidence, confidence_floor=None, higher_floors=())
    whole_cells = replay_records(
        replayed_files.request,
        replace(policy, evidence=evidence),
        replayed_files.records,
        progress,
    )
    return replace(inputs, whole_cells=build_record_inputs(whole_cells))
