"""Sources of evidence, and how recorded files are written.

Sources say from where decisions and outcomes count, and for which reviewers. The kind of a record's
source is found when it is received, by the policy in force then, and is stored with it. So an edit
of the sources changes neither what was counted nor what a recount gives.

Files have an encoding, a separator, forms of dates and numbers, and columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Final

from rollout.kernel.units import Key

REVIEWS, IMPORTS, ACCOUNT, UNNAMED = "reviews", "imports", "account", "unnamed"
"""Kinds: reviews made here, imports, an account that the policy names, and none of these."""
NOT_NAMED = "the policy does not name its sender as a source"
OWN_PREDICTION = "its sender also sent a prediction of the case"
OWN_EPISODE_PREDICTION = "its sender also sent a prediction of the episode"
BEFORE_SOURCES: Final = "before"
"""The source of records that have none."""
FILE_PREFIX: Final = "file:"
"""Prefix of the sender of an imported record; the SHA-256 of the file follows."""


@dataclass(frozen=True, slots=True)
class AccountSource:
    """A service account whose decisions are evidence, for some reviewers."""

    account: Annotated[str, Key("NonEmptyText", "Name of the service account.", "people-system")]
    reviewers: Annotated[
        tuple[str, ...],
        Key(
            "Pattern",
            "Reviewers for whom it may speak: names, or patterns with *.",
            "[ana, bo]",
            is_filled=True,
        ),
    ]


@dataclass(frozen=True, slots=True)
class VouchedSender:
    """A service account that sends late, and for which somebody vouches that it sees no answers."""

    account: Annotated[str, Key("NonEmptyText", "Name of the service account.", "box-7")]
    within: Annotated[
        timedelta,
        Key(
            "PositiveDuration",
            "Its cases and predictions count as made before the decision if they come at"
            " most this long after the case occurred. At most `grace`.",
            "50h",
        ),
    ]


@dataclass(frozen=True, slots=True)
class EvidenceSources:
    """From where records are evidence, besides reviews made here and imports.

    Others are stored and reported only.
    """

    accounts: Annotated[
        tuple[AccountSource, ...],
        Key("", "Service accounts that send decisions made elsewhere."),
    ] = ()
    vouched_senders: Annotated[
        tuple[VouchedSender, ...],
        Key(
            "",
            "Service accounts that may send cases and predictions after humans decided:"
            " devices that send at night, batches, services that race each other, desks whose"
            " clocks differ.",
            name="vouched",
        ),
    ] = ()
    outcomes: Annotated[
        tuple[str, ...] | None,
        Key(
            "NonEmptyText",
            "Service accounts whose outcomes count; default: all that may send them. None"
            " counts to widen for a case that it predicted.",
            "[till]",
        ),
    ] = None
    cases: Annotated[
        tuple[str, ...] | None,
        Key(
            "NonEmptyText",
            "Service accounts whose cases count for gates; default: all that may send them."
            " Other accounts' cases are as if not stored, except for guards. Imports always count.",
            "[camera-1]",
        ),
    ] = None

    @property
    def vouched(self) -> Mapping[str, timedelta]:
        """Return how long after a case an account may send, by account."""
        return {sender.account: sender.within for sender in self.vouched_senders}

    def registers(self, account: str) -> bool:
        """Return whether a case counts for gates because this account sent it."""
        return self.cases is None or account in self.cases

    def find_outcome_kind(self, account: str) -> str:
        """Return the kind of an account's outcomes."""
        return ACCOUNT if self.outcomes is None or account in self.outcomes else UNNAMED

    def list_patterns(self, account: str) -> tuple[str, ...]:
        """Return the reviewers for whom an account may speak, as patterns."""
        return tuple(
            pattern
            for source in self.accounts
            if source.account == account
            for pattern in source.reviewers
        )


DEFAULT_SOURCES: Final = EvidenceSources()
"""The sources of a policy that names none."""


@dataclass(frozen=True, slots=True)
class CountedSource:
    """Counted decisions of one source: a kind, or the id or name of an account."""

    source: str
    decisions: int
    reviewers: int


@dataclass(frozen=True, slots=True)
class CountedOutcomeSource:
    """Counted units with outcomes of one source: a kind, or the id or name of an account."""

    source: str
    units: int


@dataclass(frozen=True, slots=True)
class FrozenVouching:
    """Counted units of a vouched account that were known after their first decision only.

    Attributes:
        account: its id.
        units: those that count because it is vouched for.
        counted: all units that count.
        within: the longest time after a case for which it was vouched for.
    """

    account: str
    units: int
    counted: int
    within: timedelta


@dataclass(frozen=True, slots=True)
class RegisteredUnits:
    """Counted units whose cases one source registered: a kind, or an account's id or name.

    Attributes:
        source: of the cases.
        units: those units.
        own: those of them that it also predicted, with the version that is judged.
    """

    source: str
    units: int
    own: int


def name_sender(sender: str | None, *, is_review: bool) -> str:
    """Return where a record came from: a kind, or the id of the account that sent it.

    >>> name_sender("file:3fe1", is_review=False), name_sender(None, is_review=False)
    ('imports', 'before')
    """
    if is_review:
        return REVIEWS
    if sender is None:
        return BEFORE_SOURCES
    return IMPORTS if sender.startswith(FILE_PREFIX) else sender


def build_file_sender(sha256: str) -> str:
    """Return the sender of the records of a file."""
    return FILE_PREFIX + sha256


@dataclass(frozen=True, kw_only=True)
class ReadingBase:
    """What the reading of files and its row in the policy have in common; None is not chosen."""

    encoding: Annotated[
        str | None,
        Key(
            "Encoding",
            "Encoding of a text file, such as latin-1 or utf-16. Default: UTF-8.",
        ),
    ] = None
    delimiter: Annotated[
        str | None,
        Key("Delimiter", "Between columns: , ; | or tab. Default: by suffix, .csv or .tsv."),
    ] = None
    decimal: Annotated[
        str | None,
        Key("", "Decimal sign of numbers. Default: a point.", choices=(".", ",")),
    ] = None
    date_formats: Annotated[
        tuple[str, ...] | None,
        Key(
            "DateFormat",
            "Forms of times other than ISO 8601: day-first, month-first, year-first, "
            "basic (20270503T140509Z), unix-seconds, unix-milliseconds, or a pattern as "
            "%d-%b-%Y %H:%M; a Z at its end means UTC.",
            name="date_format",
            is_filled=True,
        ),
    ] = None
    percent: Annotated[
        bool | None, Key("Flag", "Confidence is from 0 to 100. Default: from 0 to 1.")
    ] = None
    unsure: Annotated[
        tuple[str, ...] | None,
        Key("NonEmptyText", "Labels that mean: no answer.", is_filled=True),
    ] = None
    exposure: Annotated[
        str | None,
        Key(
            "",
            "What reviewers had seen, where the file does not say. Default: evidence.outside.",
            choices=("blind", "assisted", "unknown"),
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class FileReading(ReadingBase):
    """How the files of one kind of records are written.

    Attributes:
        columns: their column by our name.
        constants: one text for all rows, by our name.
        attributes: the columns that are attributes of the case.
        number_levers: levers whose answers are numbers and have the decimal sign; other answers are
            text, in which a comma stays.
        set_labels: levers whose answers are sets, with their labels.
        listed: by column (`site`, `value:<lever>`) the texts that are no placeholders, because the
            policy or an option lists them.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] | None = None
    number_levers: frozenset[str] = frozenset()
    set_labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    listed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
