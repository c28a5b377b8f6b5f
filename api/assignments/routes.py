"""Assignments: who decides a case, answered from memory where possible.

Clients send a request for every picture, so this module parses the body and formats the response
without FastAPI's generic code, and `api.assignments.fast_path` answers most requests without the
route. A test compares the response with `AssignmentResult`.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache, partial
from json.encoder import encode_basestring_ascii
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError

from api.assignments.schemas import (
    ANSWER,
    MAX_MEMBERS,
    QUESTION,
    AssignmentBatchRequest,
    AssignmentBody,
    AssignmentQuestion,
    AssignmentRequest,
    AssignmentResult,
    AssignmentResultList,
    has_large_object,
    parse_quickly,
)
from api.auth import Caller, OutageTolerantCheck, Permission
from api.metrics import RequestCounts
from api.priority_threads import NO_ANSWER_TEXT, run_in_time
from api.schema_forms import build_responses, inline_schema
from rollout.data.database.append_failures import DatabaseUnavailableError
from rollout.data.records.records import RecordReceipt
from rollout.engine.files.parse import MAX_DETAILED_FAULTS
from rollout.features.assignments.assignments import (
    DATABASE_UNAVAILABLE,
    AssignmentAnswers,
    ClientHead,
    CodedHead,
    answer_from_memory,
    answer_questions,
    assign_all_to_humans,
)
from rollout.live.service import Service
from rollout.live.state_cache import SharedAssignment

router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["assignments"])
BODY_ADAPTER = TypeAdapter(AssignmentBody)
BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "anyOf": [
                    inline_schema(TypeAdapter(AssignmentRequest)),
                    inline_schema(TypeAdapter(AssignmentBatchRequest)),
                ]
            },
            "example": QUESTION,
        }
    },
}
TOO_MANY_FAULTS_TEXT = f"over {MAX_DETAILED_FAULTS} faults; see the schema of a question"
TOO_MANY_MEMBERS_TEXT = f"an object has at most {MAX_MEMBERS} members; send fewer"
QUOTE = '"'
DRAWN_TEXTS = {None: "null", True: "true", False: "false"}  # of each answer: faster than `dumps`
BOTH_FORMS_FAULT = {"loc": ("questions",), "msg": "give one question or `questions`, not both"}


@router.post(
    "/assignments",
    operation_id="requestAssignments",
    summary="Ask who decides a case, or many cases",
    response_model=AssignmentResult | AssignmentResultList,
    responses=build_responses(ANSWER),
    openapi_extra={"requestBody": BODY},
)
async def request_assignments(
    rollout: str,
    request: Request,
    caller: Annotated[Caller | None, Depends(OutageTolerantCheck(Permission.REQUEST_ASSIGNMENT))],
) -> Response:
    """Return who decides a case, or each case of a batch.

    If the request carries predictions, they are stored like records. Unknown sites, versions or
    rollouts and incomplete questions get `human`; `reason` explains why.

    Use an answer for at most `lease` seconds. Count them from before you sent the request, on a
    monotonic clock that continues during sleep. On an error or a timeout, a human decides. It is
    safe to retry.

    While the database does not respond, the answer within a second is `human`. A request with
    predictions gets 503 instead, because they could not be stored.
    """
    service = request.app.state.service
    body = _parse_body(await request.body())
    questions, client_head = _list_questions(body), _find_client_head(body)
    answers = await _answer_in_time(request, caller, rollout, questions, client_head)
    is_known = service.state_cache.find_last_policy(rollout) is not None
    request.app.state.counts.count_assignments(
        rollout if is_known else "", [r.assignment.decider for r in answers.assignments]
    )
    return Response(_format_response(answers, body), media_type="application/json")


def find_quick_answer(
    service: Service, counts: RequestCounts, caller: Caller, rollout: str, body: bytes
) -> bytes | None:
    """Return the JSON of the answers from memory, or None if the route must answer.

    Raises:
        RefusalError: the route refuses the request.
    """
    parsed = parse_quickly(body)
    if parsed is None:
        return None
    questions, client_head = _list_questions(parsed), _find_client_head(parsed)
    answers = answer_from_memory(service, caller, rollout, questions, client_head)
    if answers is None:
        return None
    response = _format_response(answers, parsed)
    counts.count_assignments(rollout, [r.assignment.decider for r in answers.assignments])
    return response


def _list_questions(body: Any) -> Sequence[AssignmentQuestion]:
    return body.questions if body.is_batch else (body,)


def _find_client_head(body: Any) -> ClientHead | None:
    head = body.ledger_head
    return None if head is None else ClientHead(head.revision, head.hash, head.code)


async def _answer_in_time(
    request: Request,
    caller: Caller | None,
    rollout: str,
    questions: Sequence[AssignmentQuestion],
    client_head: ClientHead | None,
) -> AssignmentAnswers:
    """Return the answers, or `human` for each if the database does not respond in time.

    Raises:
        DatabaseUnavailableError: the questions hold predictions that could not be stored.
    """
    service, failure = request.app.state.service, DatabaseUnavailableError(NO_ANSWER_TEXT)
    if caller is not None:
        work = partial(answer_questions, service, caller, rollout, questions, client_head)
        try:
            return await run_in_time(request.scope["state"], work)
        except DatabaseUnavailableError as error:
            failure = error
    if any(question.has_prediction for question in questions):
        raise failure
    return assign_all_to_humans(questions, DATABASE_UNAVAILABLE, service.clock.now())


def _parse_body(body: bytes) -> Any:
    """Return the parsed body, as `AssignmentBody` defines it.

    Raises:
        RequestValidationError: the body has neither form; each fault has its location.
    """
    parsed = parse_quickly(body)
    if parsed is not None:
        return parsed
    if has_large_object(body):  # before each of its members is a fault
        raise RequestValidationError([{"loc": (), "msg": TOO_MANY_MEMBERS_TEXT}])
    try:
        parsed_slowly = BODY_ADAPTER.validate_json(body)
    except ValidationError as error:
        if error.error_count() > MAX_DETAILED_FAULTS:
            raise RequestValidationError([{"loc": (), "msg": TOO_MANY_FAULTS_TEXT}]) from None
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError(faults) from None
    if parsed_slowly.mixes_forms:
        raise RequestValidationError([BOTH_FORMS_FAULT])
    return parsed_slowly


def _format_response(answers: AssignmentAnswers, body: Any) -> bytes:
    texts = _format_answers(answers, _list_questions(body))
    if not body.is_batch:
        return texts[0].encode()
    return b'{"answers":[%b]}' % ",".join(texts).encode()


def _format_answers(
    answers: AssignmentAnswers, questions: Sequence[AssignmentQuestion]
) -> list[str]:
    """Format each answer; parts that several cases share are formatted once."""
    ends = {
        assignment: ",".join(
            (_format_assignment(assignment, answers.head), _format_expiry(assignment, answers.at))
        )
        for assignment in set(answers.assignments)
    }
    # a permit's parts need no escapes: digits, points and words of ours
    return [
        f'{{"key":{encode_basestring_ascii(question.key)}'
        f',"permit":{"null" if permit is None else QUOTE + permit + QUOTE}'
        f',"recorded":{"null" if recorded is None else _format_record_result(recorded)}'
        f',"drawn":{DRAWN_TEXTS[is_drawn]}'
        f",{ends[assignment]}}}"
        for question, assignment, permit, recorded, is_drawn in zip(
            questions,
            answers.assignments,
            answers.permits,
            answers.recorded,
            answers.draws,
            strict=True,
        )
    ]


def _format_record_result(record_result: RecordReceipt) -> str:
    return json.dumps({"status": record_result.status, "reason": record_result.reason})


def _format_expiry(assignment: SharedAssignment, at: datetime) -> str:
    fresh_until = at + assignment.assignment.lease
    return f'"issued_at":"{at.isoformat()}","fresh_until":"{fresh_until.isoformat()}"'


@lru_cache(maxsize=4_096)
def _format_assignment(assignment: SharedAssignment, head: CodedHead) -> str:
    decision = assignment.assignment
    fields = {
        "decider": decision.decider,
        "stage": decision.stage,
        "exposure": decision.exposure,
        "share": decision.share,
        "reason": decision.reason,
        "unanswered": [
            {
                "lever": fallback.lever,
                "action": fallback.action,
                "answer_within": fallback.after.total_seconds(),
            }
            for fallback in decision.fallbacks
        ],
        "revision": decision.revision,
        "hash": head.hash,
        "era": head.era,
        "head_code": head.code,
        "lease": decision.lease.total_seconds(),
    }
    return json.dumps(fields)[1:-1]
