"""Memory that is free again: whether the C library gives it back to the system."""

import ctypes
from typing import Final

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""Parameters of glibc's `mallopt`."""
KEPT_BYTES: Final = 128 * 1024


def return_freed_memory() -> None:
    """Have large blocks of this process returned once they are free.

    By itself glibc keeps blocks of up to 32 MiB for later, once blocks as large were freed, and
    has an arena for each thread. Other C libraries have no such parameters.
    """
    set_parameter = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_parameter is not None:
        set_parameter(TRIM_THRESHOLD, KEPT_BYTES)
        set_parameter(MMAP_THRESHOLD, KEPT_BYTES)
        set_parameter(ARENA_MAX, 1)
