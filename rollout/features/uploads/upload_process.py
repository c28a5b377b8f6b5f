"""One run over uploaded files in a process of low priority and limited memory."""

from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from rollout.features.uploads.upload_runs import ADVICE, MAX_MINUTES, UploadOptions
from rollout.features.uploads.uploaded_files import run_uploaded_files
from rollout.live.work.user_runs import answer_request, build_answer, report_step

MEMORY_TEXT: Final = f"it needs more than 1 GiB of memory; run {ADVICE}"


def run_requested(values: dict[str, Any]) -> dict[str, Any]:
    """Return the message that ends a run: its result, or an error."""
    options = TypeAdapter(UploadOptions).validate_python(values["options"])
    folder = Path(values["folder"])
    return build_answer(lambda: run_uploaded_files(folder, options, report_step), MEMORY_TEXT)


if __name__ == "__main__":
    answer_request(run_requested, MAX_MINUTES * 60)
