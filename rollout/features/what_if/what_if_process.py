"""One comparison in a process of low priority and limited memory; it ends with its parent.

Nothing is written but to its output, so a crash leaves nothing behind.
"""

from contextlib import closing
from datetime import datetime
from typing import Any, Final

from pydantic import TypeAdapter

from rollout.data.database.session import Database
from rollout.engine.decide.permissions import Caller
from rollout.features.what_if.closed_cases import load_what_if_inputs
from rollout.features.what_if.comparison import WhatIfResult, compare_policies
from rollout.features.what_if.requests import WhatIfRequest
from rollout.live.work.user_runs import answer_request, build_answer, report_step

TIME_LIMIT: Final = 1_800  # seconds of a processor
MEMORY_TEXT: Final = "it needs more than 1 GiB of memory; compare 30 days, or run the command"


def compare_requested(values: dict[str, Any]) -> dict[str, Any]:
    """Return the message that ends a run: its result, or an error."""
    return build_answer(lambda: _compare(values), MEMORY_TEXT)


def _compare(values: dict[str, Any]) -> WhatIfResult:
    caller = TypeAdapter(Caller).validate_python(values["caller"])
    request = TypeAdapter(WhatIfRequest).validate_python(values["request"])
    with closing(Database(values["database"])) as database:
        at = datetime.fromisoformat(values["at"])
        inputs = load_what_if_inputs(database, caller, request, at=at)
        return compare_policies(inputs, report_step)


if __name__ == "__main__":
    answer_request(compare_requested, TIME_LIMIT)
