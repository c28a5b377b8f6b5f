"""The stages of a ladder, and what a policy says of single model versions.

Each stage divides its units between the model and people.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from rollout.kernel.units import DECIDES, PROPOSES, Key

LOWEST_SHARE, HIGHEST_SHARE = 0.02, 0.98  # of the model's arm; beyond, one arm says too little


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage above shadow.

    With `audit` the model decides, without it a human confirms. At a stage with `share` it
    decides too, and the rest is the blind share: people decide it, and see nothing of the model.
    """

    id: Annotated[str, Key("Name", "Name of the stage.", "supervised")]
    blind: Annotated[float, Key("Share", "Share of units that humans decide blind.")] = 0.0
    audit: Annotated[
        float | None,
        Key(
            "Share",
            "The model decides, and humans decide this share blind afterwards. "
            "Without it a human confirms each case.",
        ),
    ] = None
    lasts: Annotated[
        timedelta,
        Key("PositiveDuration", "Length of a grant until it is renewed on fresh evidence."),
    ] = timedelta(days=90)
    share: Annotated[
        float | None,
        Key(
            "Share",
            "The model decides this share of units, sampled at random; humans decide the "
            "rest and see nothing of it. Instead of blind; audit is then of the model's part.",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.share is not None:
            object.__setattr__(self, "audit", self.audit or 0.0)
            object.__setattr__(self, "blind", self.blind or round(1 - self.share, 12))

    @property
    def model_decides(self) -> bool:
        """Return whether the model acts without a human's confirmation."""
        return self.audit is not None

    @property
    def reviewed_share(self) -> float:
        """Return the share of units that get a blind decision."""
        return self.blind + (1 - self.blind) * (self.audit or 0.0)

    @property
    def arm(self) -> str:
        """Return what the model does with the units of its arm."""
        return DECIDES if self.model_decides else PROPOSES

    @property
    def decided_share(self) -> float | None:
        """Return the share of units drawn for the model to decide; None if humans decide all."""
        if not self.model_decides:
            return None
        return 1.0 if self.share is None else self.share

    @property
    def model_share(self) -> float | None:
        """Return the probability of the model's arm; None if the stage has no two arms."""
        share = round(1 - self.blind, 12)
        return share if LOWEST_SHARE <= share <= HIGHEST_SHARE else None


def describe_decided(share: float | None) -> str:
    """Return which cases a version decides, of those that its stage draws for it.

    >>> describe_decided(0.4), describe_decided(1.0)
    ('40 % of cases, drawn at random', 'alone')
    """
    if share is None or share == 1:
        return "alone"
    return f"{share * 100:g} % of cases, drawn at random"


def describe_share(decider: str, share: float | None) -> str:
    """Return what a version or "the model" decides at a stage.

    >>> describe_share("v1", 0.4)
    'v1 decides 40 % of cases, drawn at random; humans the rest'
    """
    rest = "" if share in {None, 1.0} else "; humans the rest"
    return f"{decider} decides {describe_decided(share)}{rest}"


def describe_sample_share(version: str, share: float) -> str:
    """Return on which part of the cases a version runs.

    >>> describe_sample_share("v1", 0.1)
    'v1 runs on 10 % of the cases'
    """
    return f"{version} runs on {share * 100:g} % of the cases"


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
