"""Contents that questions declare: a question of another content than known gets a human."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from rollout.core.policy.version_contents import find_content_fault, parse_content
from rollout.services.engine.rollout_state import RolloutState

ContentFaults = Mapping[int, str]
"""By place of a question, why its declared content is not the version's."""


class DeclaringQuestion(Protocol):
    """A question that may declare its version's content."""

    @property
    def version(self) -> str:
        """Return the version that would decide."""
        ...

    @property
    def content(self) -> str | None:
        """Return the declared hash of its weights and pre-processing."""
        ...


def find_content_faults(
    state: RolloutState, questions: Sequence[DeclaringQuestion]
) -> ContentFaults:
    """Return the faults of declared contents; unknown versions have none."""
    if {question.content for question in questions} <= {None, ""}:  # faster than `any`
        return {}
    faults = {
        place: _find_fault(state, question.version, question.content)
        for place, question in enumerate(questions)
        if question.content
    }
    return {place: fault for place, fault in faults.items() if fault}


def list_declared_contents(questions: Sequence[DeclaringQuestion]) -> dict[str, str]:
    """Return by version the content that its first question with a usable one declares."""
    contents: dict[str, str] = {}
    for question in questions:
        if question.content and not _find_form_fault(question.content):
            contents.setdefault(question.version, question.content)
    return contents


def _find_fault(state: RolloutState, version: str, declared: str) -> str:
    stored = state.versions.get(version)
    if form_fault := _find_form_fault(declared):
        return form_fault
    if stored is None:
        return ""
    by_policy = state.policy.contents_by_version.get(version, "")
    content = stored.info.content or by_policy
    return find_content_fault(version, declared=declared, content=content, by_policy=by_policy)


def _find_form_fault(declared: str) -> str:
    try:
        parse_content(declared)
    except ValueError as error:
        return str(error)
    return ""
