"""Plays an example: its shipped records, or those of another seed."""

import subprocess
import sys

from rollout.features.demo.catalog import build_replay_request
from rollout.features.demo.story import ExampleStory
from rollout.features.replay.replay import build_replay_inputs, replay_files
from rollout.features.reports.figures.facts import compute_report_facts


def play_example_story(example):
    """Return the story of an example's records."""
    replayed_files = replay_files(build_replay_request(example))
    inputs = build_replay_inputs(replayed_files)
    return ExampleStory(example, replayed_files, inputs, compute_report_facts(inputs))


def generate_records(example, seed, folder):
    """Write the records of a seed into `folder`/records, beside the example's policy."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy.yaml").write_bytes(example.policy_path.read_bytes())
    script = example.folder / "generate.py"
    command = [sys.executable, str(script), "--seed", str(seed), "--out", str(folder / "records")]
    subprocess.run(command, check=True, capture_output=True, text=True)


def play_seed(example, seed, folder):
    """Return the story of another seed."""
    generate_records(example, seed, folder)
    return play_example_story(example.model_copy(update={"folder": folder, "seed": seed}))
