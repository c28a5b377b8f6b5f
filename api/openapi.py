"""`/docs`: every operation with its example, on a page that loads nothing from elsewhere."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, select_autoescape

router = APIRouter(include_in_schema=False)
METHODS = ("get", "post", "put", "patch", "delete")
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as the page shows it; examples are written JSON by media type or status."""

    id: str
    method: str
    path: str
    summary: str
    description: str
    parameters: tuple[Mapping[str, Any], ...]
    bodies: tuple[tuple[str, str], ...]
    answers: tuple[tuple[str, str], ...]


@router.get("/docs")
def docs(request: Request) -> HTMLResponse:
    """Show what the API can do."""
    return HTMLResponse(page(request.app.openapi()))


def page(document: Document) -> str:
    """Return the page for an OpenAPI document."""
    info = document["info"]
    tags: dict[str, list[Operation]] = {}
    for tag, operation in _operations(document):
        tags.setdefault(tag, []).append(operation)
    template = _environment().get_template("operations.html.j2")
    return template.render(
        title=info["title"],
        version=info["version"],
        about=info.get("description", ""),
        tags=sorted(tags.items()),
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(loader=PackageLoader("api"), autoescape=select_autoescape(default=True))


def _operations(document: Document) -> Iterator[tuple[str, Operation]]:
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                yield _operation(document, path, method, methods[method])


def _operation(document: Document, path: str, method: str, said: Document) -> tuple[str, Operation]:
    body = said.get("requestBody", {}).get("content", {})
    answers = {s: a.get("content", {}) for s, a in said["responses"].items() if s[0] == "2"}
    examples = ((s, e) for s, c in answers.items() for _, e in _examples(document, c))
    operation = Operation(
        id=f"{method}-{path.strip('/').replace('/', '-')}",
        method=method.upper(),
        path=path,
        summary=said.get("summary", ""),
        description=said.get("description", ""),
        parameters=tuple(said.get("parameters", ())),
        bodies=tuple(_examples(document, body)),
        answers=tuple(examples),
    )
    return (said.get("tags") or ["other"])[0], operation


def _examples(document: Document, content: Document) -> Iterator[tuple[str, str]]:
    """Yield the example of each media type that has one, at its place or in its schema."""
    for media, spec in content.items():
        example = spec.get("example")
        if example is None and spec.get("examples"):
            example = next(iter(spec["examples"].values())).get("value")
        if example is None:
            example = _of_schema(document, spec.get("schema", {}))
        if example is not None:
            text = (
                example
                if isinstance(example, str)
                else json.dumps(example, indent=2, ensure_ascii=False)
            )
            yield media, text


def _of_schema(document: Document, schema: Document) -> Any:
    schema_name = schema.get("$ref", "").rsplit("/", 1)[-1]
    target = document["components"]["schemas"].get(schema_name, schema)
    return target.get("example") or next(iter(target.get("examples", ())), None)
