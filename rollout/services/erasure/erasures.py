"""Erasing what a request names: a case, an episode or a name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from rollout.services.erasure.case_erasure import erase_case, erase_episode
from rollout.services.erasure.erasure import ErasureRequest, ErasureResult
from rollout.services.erasure.name_erasure import erase_name
from rollout.store.database.session import Database

ERASURES: Final[Mapping[str, Callable[[Database, ErasureRequest, str], ErasureResult]]] = (
    MappingProxyType({"case": erase_case, "episode": erase_episode, "reviewer": erase_name})
)
"""What can be erased in one rollout, with the function."""


def describe_erasure(result: ErasureResult) -> str:
    """Return the sentence for the result of an erasure."""
    if not result.rows and not result.cases:
        return "nothing was left to erase: it was erased before"
    if result.pseudonym:
        return f"{result.rows} rows changed or deleted; {result.pseudonym} replaces the name"
    cases, reports = (
        f"{count} {noun}{'' if count == 1 else 's'}"
        for count, noun in ((result.cases, "case"), (result.reports, "report"))
    )
    return f"{cases} erased: {result.rows} rows, and parts of {reports}; counts stay"
