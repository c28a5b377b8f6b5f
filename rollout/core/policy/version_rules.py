"""What a policy says of single model versions."""

import re
from dataclasses import dataclass
from typing import Annotated

from rollout.kernel.policy_keys import Key

_SHA_256 = re.compile("[0-9a-f]{64}")


def parse_content(text: str) -> str:
    """Return a content hash as given.

    Raises:
        ValueError: it isn't a SHA-256 in lower-case hexadecimal digits.

    >>> parse_content("AB12")
    Traceback (most recent call last):
    ValueError: content 'AB12' is no SHA-256: write its 64 hexadecimal digits in lower case
    """
    if _SHA_256.fullmatch(text) is None:
        problem = f"content {text[:80]!r} is no SHA-256"
        raise ValueError(f"{problem}: write its 64 hexadecimal digits in lower case")
    return text


def shorten_content(content: str) -> str:
    """Return the first digits of a content hash, for a sentence.

    >>> shorten_content("ab12cd34ef56" + 52 * "0")
    'ab12cd34ef56…'
    """
    return f"{content[:12]}…"


def find_content_fault(version: str, *, declared: str, content: str, by_policy: str) -> str:
    """Return why a prediction is refused, or "".

    Args:
        declared: with the prediction; "" if it declares none.
        content: the version's content; "" if the version was used before without one.
        by_policy: the content in the policy; "" without one.
    """
    advice = "give other weights another version name"
    if by_policy and by_policy != content:
        first, other = shorten_content(content), shorten_content(by_policy)
        return f"{version} has the content {first}, and the policy says {other}; {advice}"
    if declared and not content:
        return (
            f"{version} was used before without `content`; declare it in the policy's `versions`,"
            f" or {advice}"
        )
    if declared and declared != content:
        first, other = shorten_content(content), shorten_content(declared)
        return f"{version} has the content {first}, not {other}; {advice}"
    return ""


@dataclass(frozen=True, slots=True)
class VersionRule:
    """What holds for one model version."""

    id: Annotated[str, Key("Name", "Name of the version, as records write it.", "v7")]
    content: Annotated[
        str,
        Key(
            "ContentHash",
            "SHA-256 of weights and pre-processing: predictions that declare another are rejected.",
        ),
    ] = ""
    sample: Annotated[
        float,
        Key(
            "SampleShare",
            "Share of cases on which it runs: the service samples and names them, the "
            "others are no units.",
            "10%",
        ),
    ] = 1.0
