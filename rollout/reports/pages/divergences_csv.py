"""`divergences.csv`: every divergence, the dearest first."""

from rollout.reports.inputs.divergences import csv_of, divergence_frame
from rollout.reports.inputs.inputs import Inputs
from rollout.reports.inputs.pairs import pair_up


def divergences_csv(inputs: Inputs) -> bytes:
    """Return the file: UTF-8 with a header, instants in UTC, empty where nothing is known."""
    pairs = pair_up(inputs.records, inputs.cases, inputs.policy)
    return csv_of(divergence_frame(pairs, inputs.policy))
