"""`/docs`: all operations with examples, on a page without external resources."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, select_autoescape

from api.limits import CLOSED_POLICY

router = APIRouter(include_in_schema=False)
METHODS = ("get", "post", "put", "patch", "delete")
Document = Mapping[str, Any]
PAGE_POLICY = f"{CLOSED_POLICY}; style-src 'unsafe-inline'"  # its styles are on the page


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation on the page; examples are JSON texts by media type or status."""

    id: str
    method: str
    path: str
    summary: str
    description: str
    parameters: tuple[Mapping[str, Any], ...]
    bodies: tuple[tuple[str, str], ...]
    responses: tuple[tuple[str, str], ...]


@router.get("/docs")
def show_docs(request: Request) -> HTMLResponse:
    """Return the page with all operations."""
    headers = {"Content-Security-Policy": PAGE_POLICY}
    return HTMLResponse(render_docs(request.app.openapi()), headers=headers)


def render_docs(document: Document) -> str:
    """Return the page of an OpenAPI document."""
    info = document["info"]
    tags: dict[str, list[Operation]] = {}
    for tag, operation in _list_operations(document):
        tags.setdefault(tag, []).append(operation)
    template = _load_environment().get_template("operations.html.j2")
    return template.render(
        title=info["title"],
        version=info["version"],
        about=info.get("description", ""),
        tags=sorted(tags.items()),
    )


@lru_cache(maxsize=1)
def _load_environment() -> Environment:
    return Environment(loader=PackageLoader("api"), autoescape=select_autoescape(default=True))


def _list_operations(document: Document) -> Iterator[tuple[str, Operation]]:
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                yield _build_operation(document, path, method, methods[method])


def _build_operation(
    document: Document, path: str, method: str, spec: Document
) -> tuple[str, Operation]:
    body = spec.get("requestBody", {}).get("content", {})
    answers = {s: a.get("content", {}) for s, a in spec["responses"].items() if s[0] == "2"}
    examples = ((s, e) for s, c in answers.items() for _, e in _list_examples(document, c))
    operation = Operation(
        id=f"{method}-{path.strip('/').replace('/', '-')}",
        method=method.upper(),
        path=path,
        summary=spec.get("summary", ""),
        description=spec.get("description", ""),
        parameters=tuple(spec.get("parameters", ())),
        bodies=tuple(_list_examples(document, body)),
        responses=tuple(examples),
    )
    return (spec.get("tags") or ["other"])[0], operation


def _list_examples(document: Document, content: Document) -> Iterator[tuple[str, str]]:
    """Yield the example of each media type, from the media type or its schema."""
    for media, spec in content.items():
        example = spec.get("example")
        if example is None and spec.get("examples"):
            example = next(iter(spec["examples"].values())).get("value")
        if example is None:
            example = _find_schema_example(document, spec.get("schema", {}))
        if example is not None:
            text = (
                example
                if isinstance(example, str)
                else json.dumps(example, indent=2, ensure_ascii=False)
            )
            yield media, text


def _find_schema_example(document: Document, schema: Document) -> Any:
    schema_name = schema.get("$ref", "").rsplit("/", 1)[-1]
    target = document["components"]["schemas"].get(schema_name, schema)
    return target.get("example") or next(iter(target.get("examples", ())), None)
