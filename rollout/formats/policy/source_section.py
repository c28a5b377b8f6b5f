"""The section `evidence.sources` of a policy file."""

from rollout.formats.policy import fields as kinds
from rollout.formats.policy.sections import PolicySection, key


class AccountSourceShape(PolicySection):
    """A service account whose decisions are evidence, for some reviewers."""

    account: kinds.NonEmptyText = key(
        description="Name of the service account.", examples=["people-system"]
    )
    reviewers: list[kinds.Pattern] = key(
        min_length=1,
        description="Reviewers for whom it may speak: names, or patterns with *.",
        examples=["[ana, bo]"],
    )


class SourcesShape(PolicySection):
    """From where decisions are evidence; others are stored and reported only."""

    reviews: kinds.Flag = key("true", description="Reviews made in this service.")
    imports: kinds.Flag = key("true", description="Imported files, for which the importer vouches.")
    accounts: list[AccountSourceShape] = key(
        default_factory=list, description="Service accounts that send decisions made elsewhere."
    )
    outcomes: list[kinds.NonEmptyText] | None = key(
        None,
        description="Service accounts whose outcomes count; default: all that may send them. None"
        " counts to widen for a case that it predicted.",
        examples=["[till]"],
    )
