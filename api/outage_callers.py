"""Who stops or narrows while the database does not respond: the caller as last read.

Nothing else is done for such a caller. Nobody may widen, read or approve by what may have been
revoked since; a stop can't wait, and other users can end it.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Final

from api.priority_threads import look_up_with_priority
from rollout.core.scope.permissions import Caller
from rollout.store.database.append_failures import is_storage_failure

LOOK_UP_SECONDS: Final = 1.0
"""Seconds that a stop waits for its caller, if it is known from before."""
LOOK_UP_THREADS: Final = ThreadPoolExecutor(8, thread_name_prefix="narrowing-callers")


async def find_narrowing_caller(
    look_up: Callable[[], Caller], recall: Callable[[], Caller | None]
) -> Caller:
    """Return who stops or narrows, as last read if the database does not respond.

    Args:
        look_up: reads the database; its refusals hold.
        recall: returns the caller as last read, or None.
    """
    last_read_caller = recall()
    if last_read_caller is None:
        return await look_up_with_priority(look_up)
    run_look_up = partial(copy_context().run, look_up)  # logs name the request
    try:
        async with asyncio.timeout(LOOK_UP_SECONDS):
            return await asyncio.get_running_loop().run_in_executor(LOOK_UP_THREADS, run_look_up)
    except Exception as error:
        if not is_storage_failure(error):  # time-outs are
            raise
        return last_read_caller
