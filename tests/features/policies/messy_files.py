"""One set of records, written in the ways in which people's files come."""

import csv
import io
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

COUNT = 60
LABELS = ("Bär", "deer", "none")
DATES = {
    "iso": lambda at: at.isoformat(),
    "space": lambda at: at.strftime("%Y-%m-%d %H:%M:%S"),
    "dots": lambda at: at.strftime("%d.%m.%Y %H:%M:%S"),
    "slashes": lambda at: at.strftime("%d/%m/%Y %H:%M:%S"),
    "american": lambda at: f"{at.month}/{at.day}/{at.year} {at.strftime('%I:%M:%S %p')}",
    "year": lambda at: at.strftime("%Y/%m/%d %H:%M:%S"),
    "bigquery": lambda at: at.strftime("%Y-%m-%d %H:%M:%S UTC"),
    "seconds": lambda at: f"{at.replace(tzinfo=UTC).timestamp():.0f}",
    "milliseconds": lambda at: f"{at.replace(tzinfo=UTC).timestamp() * 1000:.0f}",
    "month names": lambda at: at.strftime("%d-%b-%Y %H:%M:%S"),
    "two-digit years": lambda at: at.strftime("%d.%m.%y %H:%M:%S"),
}
COLUMNS = {
    "own": {},
    "spoken": {"case_key": "Image", "label": "Species", "reviewer": "Annotator"},
    "formal": {"label": "pred_label", "confidence": "Score", "decided_at": "dec_time"},
}


@dataclass(frozen=True)
class Variant:
    """How the files are written, what is typed, and what is expected.

    `refused` is a part of the sentence of a refusal; "" where the files are read right.
    """

    name: str
    refused: str = ""
    options: tuple[str, ...] = ()
    encoding: str = "utf-8"
    separator: str = ","
    date: str = "iso"
    confidence: str = "share"
    decimal: str = "."
    unsure: str = ""
    columns: str = "own"
    month: int = 3
    step: timedelta = timedelta(hours=11)
    several: bool = False

    def __str__(self):
        return self.name


def write_files(folder, variant):
    """Write predictions.csv and decisions.csv as the variant says; return their paths."""
    predictions, decisions = zip(*(_build_rows(n, variant) for n in range(COUNT)), strict=True)
    paths = []
    for name, rows in (("predictions", predictions), ("decisions", decisions)):
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=variant.separator, lineterminator="\r\n")
        names = COLUMNS[variant.columns]
        writer.writerow([names.get(column, column) for column in rows[0]])
        writer.writerows(row.values() for row in rows)
        path = folder / f"{name}.csv"
        path.write_bytes(text.getvalue().encode(variant.encoding))
        paths.append(path)
    return paths


def _build_rows(number, variant):
    at = datetime(2027, variant.month, 1, 9, 30, 7) + number * variant.step  # noqa: DTZ001 - files have local times
    write = DATES[variant.date]
    label = LABELS[number % 3]
    predicted = LABELS[(number + (number % 10 == 0)) % 3]
    if variant.several and number == 7:
        label = "Bär|deer"
    key = f"c-{number:03}"
    prediction = {
        "case_key": key,
        "site": "Mühle" if number % 2 else "creek",
        "occurred_at": write(at),
        "model_version": "v1",
        "label": predicted,
        "confidence": _write_confidence(number, variant),
        "latency_ms": f"{20 + number / 4}".replace(".", variant.decimal),
    }
    decision = {
        "case_key": key,
        "reviewer": f"Zoë-{number % 3}",
        "label": variant.unsure if number % 8 == 5 else label,
        "decided_at": write(at + timedelta(hours=2)),
        "exposure": "blind",
    }
    return prediction, decision


def _write_confidence(number, variant):
    thousandths = 401 + 7 * number  # from 0.401 to 0.814
    text = {
        "share": f"{thousandths / 1000:.3f}",
        "percent": f"{thousandths / 10:.1f}",
        "sign": f"{thousandths / 10:.1f} %",
        "outlier": "40.1" if number == 0 else f"{thousandths / 1000:.3f}",
        "certain": str(number % 2),
    }[variant.confidence]
    return text.replace(".", variant.decimal)
