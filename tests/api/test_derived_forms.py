"""A form of an answer has the fields of what it is made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api.schema_forms import add_fields_of, add_input_of

NOON = datetime(2027, 6, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Weather:
    place: str
    rain: float | None
    days: tuple[str, ...] = ()
    winds: Mapping[str, int] | None = None
    secret: str = ""


@add_fields_of(Weather, "secret")
class WeatherForm(BaseModel):
    """What the weather is."""

    model_config = ConfigDict(from_attributes=True)

    rain: float | None = Field(description="millimetres")


def test_a_form_has_the_fields_that_it_does_not_leave_out():
    form = WeatherForm.model_validate(Weather("creek", 1.5, ("mon",), {"north": 2}, "x"))
    assert form.model_dump() == {
        "place": "creek", "rain": 1.5, "days": ["mon"], "winds": {"north": 2},
    }  # fmt: skip


def test_a_form_keeps_its_own_field_its_name_and_its_text():
    schema = WeatherForm.model_json_schema()
    assert (schema["title"], schema["description"]) == ("WeatherForm", "What the weather is.")
    assert schema["properties"]["rain"]["description"] == "millimetres"
    assert sorted(schema["required"]) == ["days", "place", "rain", "winds"]


def test_an_answer_without_one_of_the_fields_is_none():
    with pytest.raises(ValidationError, match="place"):
        WeatherForm.model_validate({"rain": None, "days": [], "winds": None})


@dataclass(frozen=True)
class Forecast:
    days: tuple[Weather, ...]
    warning: Weather | None
    map: "Map"  # noqa: F821 - a class that is read where it is needed


@add_fields_of(Forecast)
class ForecastForm(BaseModel):
    """What the weather will be."""

    model_config = ConfigDict(from_attributes=True)

    map: str


def test_a_value_in_a_value_has_its_form_in_the_form():
    wet = Weather("creek", 1.5)
    form = ForecastForm.model_validate(Forecast((wet,), wet, "m"))
    rain = {"place": "creek", "rain": 1.5, "days": [], "winds": None}
    assert form.model_dump() == {"days": [rain], "warning": rain, "map": "m"}


@dataclass(frozen=True)
class Report:
    place: str
    at: datetime
    note: str | None = None
    by: str = ""


@add_input_of(Report, "by", text=Annotated[str, Field(max_length=5)])
class ReportForm(BaseModel):
    """What somebody reports."""

    model_config = ConfigDict(extra="forbid")


def test_a_request_has_the_limits_of_its_texts_and_may_leave_out_what_has_a_default():
    form = ReportForm.model_validate({"place": "creek", "at": NOON})
    assert form.model_dump() == {"place": "creek", "at": NOON, "note": None}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"place": "meadow"}, "place"),
        ({"note": "meadow"}, "note"),
        ({"at": NOON.replace(tzinfo=None)}, "at"),
        ({"by": "ana"}, "by"),
    ],
)
def test_a_request_beyond_the_limits_is_refused(wrong, field):
    with pytest.raises(ValidationError, match=field):
        ReportForm.model_validate({"place": "creek", "at": NOON} | wrong)
