"""Reasons of rejected and noted rows in words."""

from rollout.tally.frames import RemarkReason

REMARK_TEXTS = {
    RemarkReason.FAILED.value: "no answer",
    RemarkReason.UNSURE.value: "no answer",
    RemarkReason.GAP_TIME.value: "a local time that clocks skip in spring",
    RemarkReason.AMBIGUOUS_TIME.value: "a local time that clocks show twice in autumn",
}


def describe_remark(reason: str) -> str:
    """Return a reason with what it means, where the name alone is unclear.

    >>> describe_remark("gap-time"), describe_remark("duplicate")
    ('gap-time (a local time that clocks skip in spring)', 'duplicate')
    """
    text = REMARK_TEXTS.get(reason)
    return reason if text is None else f"{reason} ({text})"
