"""Judgements of divergences: the rows of one form, what they wish, and what became of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from api.console.page.form import Form
from api.paging import cursor, place_of
from rollout.core.errors import Refusal
from rollout.core.records.label_cleaning import RELABEL
from rollout.services.training.cleaning import REJECTED, SAVED, Chosen, Wish

MOST: Final = 200  # rows of one form
NOTHING: Final = "Choose keep, relabel or drop for at least one case; nothing was saved"


@dataclass(frozen=True, slots=True)
class Typed:
    """What was typed in one row."""

    choice: str = ""
    label: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """A form once its wishes were answered.

    Attributes:
        kept: how many judgements hold now that did not before.
        typed: by key what was typed in rows that were refused.
        errors: by key why each was refused.
        whole: what is wrong with the form itself; "" for nothing.
    """

    kept: int = 0
    typed: Mapping[str, Typed] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    whole: str = ""

    @property
    def refused(self) -> bool:
        """Say whether the form has to be shown again."""
        return bool(self.errors or self.whole)


def handle(key: str) -> str:
    r"""Return a key as a field holds it: a browser changes line ends, but none of these letters.

    >>> place_of(handle("creek\r\n0412"))
    'creek\r\n0412'
    """
    return cursor(key)


def wishes(form: Form, version: str, lever: str) -> list[Wish]:
    """Return what a form wishes: a row in which nothing was chosen wishes nothing.

    Raises:
        Refusal: a row names no case of ours.
    """
    row_numbers = [row_number for row_number in range(MOST) if form.one(f"choice-{row_number}")]
    return [_wish(form, row_number, version, lever) for row_number in row_numbers]


def _wish(form: Form, number: int, version: str, lever: str) -> Wish:
    key, choice = place_of(form.one(f"case-{number}")), form.one(f"choice-{number}")
    if not key:
        raise Refusal("a row of the form names no case; load the page again")
    label = form.whole(f"label-{number}") if choice == RELABEL else ""
    return Wish(
        key=key,
        choice=choice,
        lever=lever,
        label=label or None,
        reason=form.one(f"reason-{number}"),
        version=version,
    )


def answered(wished: Sequence[Wish], answers: Sequence[Chosen]) -> Answered:
    """Return what became of a form; nothing chosen at all is what is wrong with it."""
    if not wished:
        return Answered(whole=NOTHING)
    pairs = list(zip(wished, answers, strict=True))
    rejected = [(request, result) for request, result in pairs if result.status == REJECTED]
    return Answered(
        kept=sum(result.status == SAVED for result in answers),
        typed={
            request_item.key: Typed(
                request_item.choice, request_item.label or "", request_item.reason
            )
            for request_item, _ in rejected
        },
        errors={
            request_item.key: _mend(request_item, result_item.reason)
            for request_item, result_item in rejected
        },
    )


def _mend(wish: Wish, reason: str) -> str:
    if wish.choice == RELABEL and not wish.label:
        return f"{wish.key}: choose the label that it should have"
    return f"{wish.key}: {reason}"
