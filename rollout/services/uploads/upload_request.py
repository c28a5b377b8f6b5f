"""What an upload asks for: two files, how they are written, and perhaps a policy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

PREDICTIONS_FILE: Final = "predictions.csv"
DECISIONS_FILE: Final = "decisions.csv"
FILE_NAMES: Final = (PREDICTIONS_FILE, DECISIONS_FILE)
"""Names of uploaded files; those that a browser sends are not used."""
MAX_FILE_BYTES: Final = 20_000_000
MAX_ROWS: Final = 200_000
MAX_INFLATION: Final = 10
MAX_MINUTES: Final = 5
COMMANDS_TEXT: Final = (
    "`rollout init predictions.csv decisions.csv > policy.yaml`, then `rollout replay policy.yaml"
    " --predictions predictions.csv --decisions decisions.csv --out replay`"
)
ADVICE: Final = f"on a computer of your own {COMMANDS_TEXT}"


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """Options of `init`, or the policy that is used instead of a draft.

    Attributes:
        rollout: name of the rollout in the draft.
        timezone: of times without offset.
        exposure: what reviewers had seen, where the decisions don't say; "": unknown.
        readings: options of `rollout init` on how both files are written, with their values.
        policy_text: "" drafts one.
    """

    rollout: str = "my-rollout"
    timezone: str = "UTC"
    exposure: str = ""
    readings: tuple[tuple[str, str], ...] = ()
    policy_text: str = ""


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """Uploaded files and what to do with them; `keeps_files` for seven days."""

    folder: Path
    options: UploadOptions
    keeps_files: bool = False
