"""Rows of divergences and losses, their columns, and texts that are safe in cells of CSV files.

The fields of `Divergence` with a `DivergenceColumn` are the columns in CSV files. They are also the
fields of the API and of `report.json`, and pages have a column for each one with a title.

No text in a CSV file is a formula when a spreadsheet opens the file. A text that begins like a
formula gets an apostrophe in front, and so does one that has apostrophes before such a beginning,
so that each cell has one original text. Signed numbers stay as they are. The patterns are those of
`re` and of Polars alike; frames are escaped where they are written.

The columns of tables of counted pairs and the manifest of training rows are here too: nothing here
loads a data frame library.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Final, get_type_hints


@dataclass(frozen=True, slots=True)
class DivergenceColumn:
    """What a column holds, and where its values come from.

    Attributes:
        description: of the field, in the schemas of API and report.
        example: a value of it.
        title: heads its own column in tables of pages; without one, pages name the field themselves
            if they show it.
        taken_from: its own name, or a column of other records: `cases.episode`,
            `predictions.latency_ms` or `outcomes.harm`. No column is yet: a recipe's test adds one.
        is_answer: whether its values are answers, which have the lever's unit.
    """

    description: str
    example: Any
    title: str = ""
    taken_from: str = ""
    is_answer: bool = False

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> Any:
        """Return the field's JSON schema with its description."""
        return {**handler(core_schema), "description": self.description}


@dataclass(frozen=True, slots=True)
class Divergence:
    """One case on which a version and humans differ."""

    case_key: Annotated[str, DivergenceColumn("the case", "creek-0412")]
    version: Annotated[str, DivergenceColumn("the version that differs", "v7")]
    lever: Annotated[str, DivergenceColumn("what they decide", "alarm")]
    site: Annotated[str, DivergenceColumn("where the case occurred", "creek")]
    window: Annotated[str | None, DivergenceColumn("its window; null for none", "night")]
    occurred_at: Annotated[
        datetime | None,
        DivergenceColumn("when it occurred; null if its time is unusable", "2027-06-01T11:12:09Z"),
    ]
    occurred_local: Annotated[
        str,
        DivergenceColumn(
            "the same at the site, or the time as written if it is unusable",
            "2027-06-01T05:12:09-06:00",
        ),
    ]
    human: Annotated[str, DivergenceColumn("the human answer", "none")]
    model: Annotated[str, DivergenceColumn("the version's answer", "bear")]
    human_action: Annotated[str, DivergenceColumn("the action of the human answer", "nothing")]
    model_action: Annotated[str, DivergenceColumn("the action of the version's answer", "siren")]
    cost: Annotated[
        float, DivergenceColumn("cost of the version's action if the human is right", 1.0)
    ]
    confidence: Annotated[
        float | None, DivergenceColumn("of the version, from 0 to 1; null if not sent", 0.97)
    ]
    outcome: Annotated[
        str | None,
        DivergenceColumn("null until one is sent", None, title="Outcome", is_answer=True),
    ]
    attributes: Mapping[str, str]
    picture: str | None = None
    """A link, or a small picture as `data:` URL."""


@dataclass(frozen=True, slots=True)
class DivergenceCost:
    """A human and a model answer that differ, and what the model's costs.

    Attributes:
        case_key, version: the case, and whose answer.
        model, confidence: the model's answer, and its confidence if known.
        loss: surprise in nats, −ln of the probability left for the human answer.
        cost: of the wrong answer, in the policy's unit.
    """

    case_key: str
    version: str | None
    site: str | None
    window: str | None
    human: str
    model: str
    confidence: float | None
    loss: float | None
    cost: float


@dataclass(frozen=True, slots=True)
class Loss(DivergenceCost):
    """One case to look at again.

    Attributes:
        case_key, version, lever: the case, and whose answer.
        site, window, occurred_at: None if the case has no usable time.
        human: the most frequent human answer that differs from the model; if all agree with the
            model and the outcome differs, their answer.
        model, confidence: the model's answer, and its confidence if known.
        loss: surprise in nats, −ln of the model's probability of the human answer (several: mean
            over the answers; if they are the model's: of the outcome). None without confidence.
        cost: of the wrong answer: the model's, or for `suspected human error` the human one, in
            the policy's unit.
        kind: one of `KINDS` of `loss_kinds`.
        outcome: None if unknown.
        votes: all unassisted answers, the most frequent first.
        attributes: the case's attributes.
    """

    version: str
    lever: str
    occurred_at: datetime | None
    kind: str
    outcome: str | None
    votes: tuple[tuple[str, int], ...]
    attributes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class SourceCount:
    """Number and total weight of the rows from one source."""

    source: str
    rows: int
    weight: float


@dataclass(frozen=True, slots=True)
class ExportManifest:
    """The content of an export, as the provenance of a trained version.

    Attributes:
        schema: name and version of this format.
        rollout, policy: the rollout, and the hash of its policy.
        versions: versions with predictions in the records.
        sources: the requested sources, with their rows.
        first, last: times of the first and the last case; None without times.
        rows, cases: their numbers.
        weight: total weight of the rows.
        excluded: cases and levers without a row, by reason.
        cleaned: rows and dropped cases by cleaning choice.
        columns: names in order.
        sha256: of the rows in canonical format.
    """

    schema: str
    rollout: str
    policy: str
    versions: tuple[str, ...]
    sources: tuple[SourceCount, ...]
    first: datetime | None
    last: datetime | None
    rows: int
    cases: int
    weight: float
    excluded: Mapping[str, int]
    cleaned: Mapping[str, int]
    columns: tuple[str, ...]
    sha256: str


def _read_columns() -> dict[str, DivergenceColumn]:
    return {
        name: part
        for name, hint in get_type_hints(Divergence, include_extras=True).items()
        for part in getattr(hint, "__metadata__", ())
        if isinstance(part, DivergenceColumn)
    }


COLUMNS: Final = _read_columns()
"""The columns by name, in their order."""
EXAMPLE: Final[dict[str, Any]] = {
    **{name: column.example for name, column in COLUMNS.items()},
    "attributes": {"weather": "dry"},
    "picture": None,
}


def build_divergence_id(version: str, lever: str, case_key: str) -> str:
    """Return the identifier of a divergence or loss, of constant length."""
    return sha256(f"{version}\x1f{lever}\x1f{case_key}".encode()).hexdigest()


def select_titled_columns(rows: Iterable[Divergence]) -> dict[str, DivergenceColumn]:
    """Return the columns of their own in a table of these rows, without empty ones."""
    listed_rows = tuple(rows)
    return {
        name: column
        for name, column in COLUMNS.items()
        if column.title and any(getattr(row, name) is not None for row in listed_rows)
    }


FORMULA_PATTERN: Final = r"^'*[=+\-@\t\r\n\uff0b\uff0d\uff1d\uff20]"
"""The last four are full-width + - = @, which spreadsheets with an East Asian locale compute."""
NUMBER_PATTERN: Final = r"^[+-](\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"


def escape_cell(text: str) -> str:
    """Return a text with an apostrophe in front if it is a formula.

    >>> escape_cell("=1+1"), escape_cell("-4.5"), escape_cell("bear"), escape_cell("'=1")
    ("'=1+1", '-4.5', 'bear', "''=1")
    """
    is_formula = re.search(FORMULA_PATTERN, text) and not re.fullmatch(NUMBER_PATTERN, text)
    return f"'{text}" if is_formula else text


def unescape_cell(cell: str) -> str:
    """Return the original text of an escaped cell.

    >>> unescape_cell("'=1+1"), unescape_cell("-4.5"), unescape_cell("'tis"), unescape_cell("''=1")
    ('=1+1', '-4.5', "'tis", "'=1")
    """
    return cell[1:] if cell.startswith("'") and re.search(FORMULA_PATTERN, cell) else cell


KEY_COLUMNS = ("version", "lever", "site", "window", "human", "model")
COUNT_COLUMN = "n"
