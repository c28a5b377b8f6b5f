"""Examples of answers in the OpenAPI document, and of what commands answer with."""

from typing import Any

HEAD: dict[str, Any] = {"rollout": "bear-alarm", "revision": 42, "hash": "9f2c…"}
CELL: dict[str, Any] = {"site": "creek", "window": "night"}
NOON, LATER = "2027-06-01T12:00:00Z", "2027-06-15T12:00:00Z"


def answers(
    example: Any, *statuses: int, model: type[Any] | None = None
) -> dict[int | str, dict[str, Any]]:
    """Return what a route's `responses` says of its answer.

    Args:
        example: of it.
        statuses: that it may have, by default 200 alone.
        model: of the answer; needed where there are several statuses.
    """
    status_texts = {200: "done, or it held already", 201: "it is new", 202: "it waits for people"}
    responses: dict[int | str, dict[str, Any]] = {}
    for status in statuses or (200,):
        content = {"application/json": {"example": example}}
        responses[status] = {"description": status_texts[status], "content": content}
        if model is not None:
            responses[status]["model"] = model
    return responses


def written(event: str, by: str, body: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return an example of what a command wrote."""
    events = [{"at": NOON, "kind": event, "by": by, "body": body}]
    return {**HEAD, "events": events, **more}
