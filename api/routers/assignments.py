"""Who decides these cases, right now: answered from memory, with nothing waited for.

The body is read and the answer written here, each once: a box asks for every picture. What is
answered is what `AssignmentResult` says; a test compares.
"""

import json
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool

from api.auth import Judged
from api.deps import Act, By, Caller
from api.schemas.assignments import (
    ANSWER,
    QUESTION,
    AssignmentBatchRequest,
    AssignmentBody,
    AssignmentRequest,
    AssignmentResult,
    AssignmentResultList,
    QuestionFields,
    inlined,
    quickly,
)
from api.schemas.examples import answers
from rollout.formats.records.parse import MOST_TOLD
from rollout.services.assignments.assignments import Answers, Recorded, Seen, answer, at_hand
from rollout.services.engine.assignment_cache import Ruling


class Quick(APIRoute):
    """A route that is called as its signature says, without solving that each time anew.

    FastAPI's own way costs as much as the answer. Who may ask is judged all the same.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        check_permission = Judged(Act.ASK)

        async def handle(request: Request) -> Response:
            caller = await check_permission(request)
            return await request_assignments(request.path_params["rollout"], request, caller)

        return handle


router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["assignments"], route_class=Quick)
FORM = TypeAdapter(AssignmentBody)
BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"anyOf": [inlined(AssignmentRequest), inlined(AssignmentBatchRequest)]},
            "example": QUESTION,
        }
    },
}
CROWDED = f"over {MOST_TOLD} faults; look at the form of a question"
MUDDLED = {"loc": ("questions",), "msg": "give one question or `questions`, not both"}


@router.post(
    "/assignments",
    operation_id="requestAssignments",
    summary="Ask who decides a case, or many cases",
    response_model=AssignmentResult | AssignmentResultList,
    responses=answers(ANSWER),
    openapi_extra={"requestBody": BODY},
)
async def request_assignments(
    rollout: str, request: Request, who: Annotated[Caller, By(Act.ASK)]
) -> Response:
    """Say who decides one case, or each of many, and keep the predictions that came along.

    Whatever is unknown, missing or in doubt is a person's; `reason` says why. Act on it only for
    `lease` seconds, counted by a clock that never stops from before the question was sent.
    """
    service = request.app.state.service
    body = _read(await request.body())
    asked: Sequence[QuestionFields] = body.questions if body.many else (body,)
    seen = (
        None if body.ledger_head is None else Seen(body.ledger_head.revision, body.ledger_head.hash)
    )
    found = at_hand(service, who, rollout, asked, seen)
    if found is None:
        found = await run_in_threadpool(answer, service, who, rollout, asked, seen)
    request.app.state.counts.assigned(rollout, (r.assignment.decider for r in found.rulings))
    texts = _texts(found, asked)
    text = f'{{"answers":[{",".join(texts)}]}}' if body.many else texts[0]
    return Response(text, media_type="application/json")


def _read(body: bytes) -> Any:
    """Return what is asked, as `AssignmentBody` has it.

    Raises:
        RequestValidationError: the body is none of both forms; each fault says where.
    """
    parsed = quickly(body)
    if parsed is not None:
        return parsed
    try:
        parsed_slowly = FORM.validate_json(body)
    except ValidationError as error:
        if error.error_count() > MOST_TOLD:
            raise RequestValidationError([{"loc": (), "msg": CROWDED}]) from None
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError(faults) from None
    if parsed_slowly.muddled:
        raise RequestValidationError([MUDDLED])
    return parsed_slowly


def _texts(found: Answers, asked: Sequence[QuestionFields]) -> list[str]:
    """Write each answer; what is the same for all cases alike is written once."""
    assignments = set(found.rulings)
    shared_text_by_assignment = {
        assignment_item: (
            f"{_about(assignment_item, found.hash)},{_fresh(assignment_item, found.at)}"
        )
        for assignment_item in assignments
    }
    parts = zip(asked, found.rulings, found.permits, found.recorded, strict=True)
    return [
        f'{{"key":{encode_basestring_ascii(question.key)},"permit":{_text(permit)},'
        f'"recorded":{_recorded(record_result)},{shared_text_by_assignment[assignment]}}}'
        for question, assignment, permit, record_result in parts
    ]


def _text(text: str | None) -> str:
    return "null" if text is None else encode_basestring_ascii(text)


def _recorded(recorded: Recorded | None) -> str:
    if recorded is None:
        return "null"
    return json.dumps({"status": recorded.verdict, "reason": recorded.reason})


def _fresh(ruling: Ruling, at: datetime) -> str:
    return f'"fresh_until":"{(at + ruling.assignment.lease).isoformat()}"'


@lru_cache(maxsize=4_096)
def _about(ruling: Ruling, head: str) -> str:
    decision = ruling.assignment
    fields = {
        "decider": decision.decider,
        "stage": decision.stage,
        "exposure": decision.exposure,
        "audited": decision.audited,
        "share": decision.share,
        "reason": decision.because,
        "unanswered": [
            {
                "lever": fallback.lever,
                "action": fallback.action,
                "answer_within": fallback.after.total_seconds(),
            }
            for fallback in decision.unanswered
        ],
        "revision": decision.revision,
        "hash": head,
        "lease": decision.lease.total_seconds(),
    }
    return json.dumps(fields)[1:-1]
