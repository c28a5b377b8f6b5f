"""The names that programs rely on: paths, operations, parameters, components, keys and values.

They are chosen, not derived. A rename breaks generated clients, so it shows here as a difference.
"""

import re
from importlib import import_module

import pytest
from fastapi import APIRouter
from pydantic import BaseModel

from api.app import add_routes, create_app
from api.problems import STATUS_BY_CODE
from rollout.data.database.session import Database
from rollout.features.access.authentication import Authenticator
from rollout.live.clock import SystemClock
from rollout.live.service import build_service

CAMEL = re.compile(r"[a-z]+([A-Z][a-z]+)+")
METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """The names are those of any database, so one is enough."""
    clock = SystemClock()
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('none')}/none.db")
    yield create_app(build_service(database, Authenticator(database, clock), clock)).openapi()
    database.close()


def operations_of(document):
    return {
        f"{method.upper()} {path}": said
        for path, methods in document["paths"].items()
        for method, said in methods.items()
        if method in METHODS
    }


def described(schema):
    """Return a schema without prose: names of properties, references, types and values."""
    if isinstance(schema, dict):
        prose = {"title", "description", "example", "examples"}
        return {
            name: {key: described(part) for key, part in inner.items()}
            if name == "properties"
            else described(inner)
            for name, inner in schema.items()
            if name not in prose
        }
    return [described(part) for part in schema] if isinstance(schema, list) else schema


@pytest.mark.slow
def test_operations_keep_their_names(document, snapshot):
    named = {
        name: {
            "operation": said["operationId"],
            "tags": said["tags"],
            "parameters": [f"{p['in']} {p['name']}" for p in said.get("parameters", ())],
            "request": described(said.get("requestBody", {})),
            "responses": {
                status: described(answer.get("content", {}))
                for status, answer in said["responses"].items()
                if status[0] == "2"
            },
        }
        for name, said in operations_of(document).items()
    }
    assert named == snapshot


def test_values_of_parameters_keep_their_names(document, snapshot):
    named = {
        f"{name} {p['name']}": described(p["schema"])
        for name, said in operations_of(document).items()
        for p in said.get("parameters", ())
        if p["in"] == "query"
    }
    assert named == snapshot


def test_components_keep_their_names_keys_and_values(document, snapshot):
    assert described(document["components"]["schemas"]) == snapshot


def test_problem_codes_keep_their_names(snapshot):
    assert dict(STATUS_BY_CODE) == snapshot


def test_each_operation_has_an_id_of_its_own_a_summary_and_a_tag(document):
    operations = operations_of(document)
    ids = [said["operationId"] for said in operations.values()]
    assert len(set(ids)) == len(ids)
    assert [name for name in ids if not CAMEL.fullmatch(name)] == []
    assert [n for n, said in operations.items() if not said["summary"] or not said["tags"]] == []


def test_a_route_function_is_called_like_its_operation(service):
    routes = [r for r in create_app(service).routes if getattr(r, "operation_id", None)]
    snake = {r.operation_id: re.sub("([A-Z])", r"_\1", r.operation_id).lower() for r in routes}
    assert {r.operation_id: r.endpoint.__name__ for r in routes} == snake


def test_each_component_is_called_like_its_class(document):
    schemas = document["components"]["schemas"]
    titles = {name: schema["title"] for name, schema in schemas.items()}
    assert titles == {name: name for name in schemas}
    assert [name for name in schemas if not re.fullmatch("([A-Z][a-z]+)+", name)] == []
    assert set(schemas) - {"JsonValue"} <= _classes()


def _classes():
    """Return the names of the classes of bodies, in the modules that the routes import from."""
    known, waiting = set(), list(BaseModel.__subclasses__())
    while waiting:
        model = waiting.pop()
        known.add(model.__name__)
        waiting.extend(model.__subclasses__())
    modules = [import_module(name) for name in SERVICES]
    plain = {n for module in modules for n, c in vars(module).items() if isinstance(c, type)}
    return known | plain


SERVICES = (
    "rollout.kernel.facts",
    "rollout.features.reports.inputs.divergence_columns",
    "rollout.kernel.calendar.instants",
    "rollout.engine.decide.assignment_table",
    "rollout.features.cells.cells",
    "rollout.features.cells.overview",
    "rollout.features.cells.overview",
    "rollout.features.reports.figures.review_plan",
    "rollout.kernel.statistics.agreement",
    "rollout.features.reports.figures.comparison",
    "rollout.features.reports.figures.comparison",
    "rollout.kernel.statistics.intervals",
    "rollout.live.rollout_state",
    "rollout.features.cells.cells",
    "rollout.features.delivery.delivery",
    "rollout.features.incidents.incidents",
    "rollout.features.ledger.ledger_reader",
    "rollout.features.divergences.closed_units",
    "rollout.features.policies.policies",
    "rollout.features.proposals.proposal_details",
    "rollout.features.proposals.proposals",
    "rollout.features.stops.stop_options",
    "rollout.features.stops.stops",
    "rollout.live.versions",
)


def test_an_operation_without_an_id_starts_no_service(service):
    router = APIRouter(prefix="/v1/nameless")

    @router.get("")
    def nameless():
        """Nobody named it."""

    with pytest.raises(RuntimeError, match="no operation_id in /v1/nameless"):
        add_routes(create_app(service), router)
