"""Reviewers and versions have different names: the model is no human.

A decision under the name of a version, or of an account that sends predictions, would let a model
agree with itself. An account may pass on what named people decided.
"""

from collections.abc import Collection


def fold_name(name: str) -> str:
    """Return a name without its letter case and outer blanks, for comparison.

    >>> fold_name(" V1")
    'v1'
    """
    return name.strip().casefold()


def find_reviewer_fault(
    reviewer: str, folded_versions: Collection[str], predicting_accounts: Collection[str]
) -> str:
    """Return why a decision of this reviewer is rejected, or "".

    Args:
        reviewer: the name that the decision has.
        folded_versions: the names of all versions, by `fold_name`.
        predicting_accounts: service accounts that send predictions.

    >>> find_reviewer_fault("ana", {"v1"}, {"box-7"})
    ''
    """
    advice = "a model is no human; name the person who decided as `reviewer`"
    if fold_name(reviewer) in folded_versions:
        return f"reviewer {reviewer} is the name of a version: {advice}"
    if reviewer in predicting_accounts:
        return f"reviewer {reviewer} is an account that sends predictions: {advice}"
    return ""


def find_version_fault(version: str, reviewers: Collection[str]) -> str:
    """Return why a version of this name is refused, or "".

    Args:
        version: a new name.
        reviewers: names of people: users, and who decided a case.
    """
    if version not in reviewers:
        return ""
    return f"{version} is the name of a reviewer; give the version another name"
