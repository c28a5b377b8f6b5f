"""One comparison in a process of low priority and limited memory; it ends with its parent.

The request is one line of JSON on its input; progress, and at the end a result or an error, are
lines of JSON on its output. Nothing is written anywhere else, so a crash leaves nothing behind.
"""

import json
import os
import resource
import sys
from datetime import datetime
from threading import Thread
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from rollout.core.errors import RefusalError
from rollout.core.scope.permissions import Caller
from rollout.services.what_if.closed_cases import WhatIfRequest, load_what_if_inputs
from rollout.services.what_if.comparison import compare_policies
from rollout.store.database.errors import StoreError
from rollout.store.database.session import Database

NICENESS: Final = 15
MEMORY_LIMIT: Final = 2**30  # bytes
TIME_LIMIT: Final = 1_800  # seconds of a processor
MEMORY_TEXT: Final = "it needs more than 1 GiB of memory; compare 30 days, or run the command"


def limit_process() -> None:
    """Take a low priority and limit memory and time of this process."""
    os.nice(NICENESS)
    for kind, limit in (
        (resource.RLIMIT_DATA, MEMORY_LIMIT),
        (resource.RLIMIT_CPU, TIME_LIMIT),
        (resource.RLIMIT_CORE, 0),  # a core file would hold records and the database's password
    ):
        resource.setrlimit(kind, (limit, limit))


def compare_requested(values: dict[str, Any]) -> dict[str, Any]:
    """Return the message that ends a run: its result, or an error."""
    caller = TypeAdapter(Caller).validate_python(values["caller"])
    request = TypeAdapter(WhatIfRequest).validate_python(values["request"])
    database = Database(values["database"])
    try:
        at = datetime.fromisoformat(values["at"])
        inputs = load_what_if_inputs(database, caller, request, at=at)
        result = compare_policies(inputs, _report_step)
    except (RefusalError, StoreError, ValueError) as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": MEMORY_TEXT}
    except Exception as error:  # noqa: BLE001 - a run fails with a sentence
        return {"error": f"{type(error).__name__}; run the command to see where"}
    finally:
        database.close()
    return {"result": to_jsonable_python(result)}


def _report_step(step: str, done: int, total: int) -> None:
    _send({"step": step, "done": done, "total": total})


def _send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    """End this process when its input is closed: by the parent, or by the parent's end."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    limit_process()
    line = sys.stdin.readline()
    Thread(target=_end_with_parent, daemon=True).start()
    _send(compare_requested(json.loads(line)))
