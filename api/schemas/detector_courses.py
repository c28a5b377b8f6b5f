"""Schemas of the course of the detector behind an incident."""

from datetime import datetime
from math import log
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rollout.services.incidents.detector_courses import LoadedCourse


class DetectorPoint(BaseModel):
    """The detector after a tick; counts since its start."""

    at: datetime
    value_log10: float
    against: int
    records: int


class DetectorCourseBody(BaseModel):
    """A guard's detector from its start to the alarm."""

    guard: str
    threshold: float
    points: list[DetectorPoint] = Field(description="At most 200, the last one at the alarm.")


class DetectorCourseAnswer(BaseModel):
    """The course of an incident's detector; null without one, or if it is hidden."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"incident": "I-3", "course": None, "hidden": None}}
    )

    incident: str
    course: DetectorCourseBody | None
    hidden: Literal["asked", "open", "recounted"] | None = Field(
        description="`asked`: you may be asked for blind reviews at the site. `open`: a reviewer"
        " may still decide one of its cases blind. `recounted`: today's records are not those it"
        " read."
    )


def build_course_answer(incident: str, loaded: LoadedCourse | None) -> DetectorCourseAnswer:
    """Return the answer for a loaded course."""
    if loaded is None or loaded.course is None:
        hidden = None if loaded is None else loaded.hidden or None
        return DetectorCourseAnswer(incident=incident, course=None, hidden=hidden)
    points = [
        DetectorPoint(
            at=point.at,
            value_log10=point.log_value / log(10),
            against=point.against,
            records=point.records,
        )
        for point in loaded.course.points
    ]
    body = DetectorCourseBody(
        guard=loaded.course.guard, threshold=loaded.course.threshold, points=points
    )
    return DetectorCourseAnswer(incident=incident, course=body, hidden=None)
