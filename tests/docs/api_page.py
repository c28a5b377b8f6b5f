"""The page of all operations, from OpenAPI and the table of who may ask what."""

from tempfile import TemporaryDirectory

from api.app import create_app
from rollout.data.database.session import Database
from rollout.features.access.authentication import Authenticator
from rollout.live.clock import SystemClock
from rollout.live.service import build_service
from tests.api.test_rights_matrix import (
    DOOR,
    HOUSE,
    KNOWN,
    MATRIX,
    PART,
    READ,
    SELF,
    SEND,
    SITE,
    SITES,
)

HEAD = """\
# API reference

Generated from the service's OpenAPI document. `/docs` of a running service shows each operation
with examples; `/openapi.json` has every schema. [Use the API](../how-to/api.md) explains how the
operations fit together, [errors](errors.md) lists the error codes.

"Roles" may call the operation; "reads" is viewer, operator, approver or admin, and "any ingest" is
each role whose name begins with ingest. "Where" says at
which sites the caller needs the role. A caller without any role in a rollout gets 404.
"""
ROLES = {
    frozenset(KNOWN): "any",
    frozenset(READ): "reads",
    frozenset(SEND): "any ingest",
    frozenset(READ | SEND): "reads, any ingest",
}
WHERE = {
    SITE: "the site",
    SITES: "every site",
    PART: "at least one site",
    HOUSE: "all rollouts",
    SELF: "–",
    DOOR: "no sign-in",
}
RIGHTS = {name.replace(":path}", "}"): row for name, row in MATRIX.items()}
METHODS = ("get", "post", "put", "patch", "delete")


def written():
    return "\n".join([HEAD, *_tables(build_document())])


def build_document():
    """Return the OpenAPI document of a service on an empty database."""
    with TemporaryDirectory() as folder:
        clock, database = SystemClock(), Database(f"sqlite:///{folder}/none.db")
        try:
            service = build_service(database, Authenticator(database, clock), clock)
            return create_app(service).openapi()
        finally:
            database.close()


def _tables(document):
    rows = {}
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                rows.setdefault(methods[method]["tags"][0], []).append(
                    (method, path, methods[method])
                )
    for tag in sorted(rows):
        yield f"## {tag.capitalize()}\n"
        yield "| operation | `operationId` | what it does | roles | where |"
        yield "|---|---|---|---|---|"
        yield from (_row(*row) for row in rows[tag])
        yield ""


def _row(method, path, operation):
    name = f"{method.upper()} {path}"
    right = RIGHTS[name]
    roles = ROLES.get(frozenset(right.roles)) or ", ".join(sorted(right.roles))
    summary = operation["summary"]
    return (
        f"| {method.upper()} `{path}` | `{operation['operationId']}` | {summary} "
        f"| {roles} | {WHERE[right.where]} |"
    )
