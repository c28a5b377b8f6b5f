"""The page of uploaded files: a policy draft, its plan and its replay, without a shell.

A run, its files and its result are the user's own. While it runs the page reloads itself; it can be
left.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from api.limits import is_upload
from api.policies.pages import build_error_context, escape_for_textarea, parse_typed_policy
from api.web_kit.page import (
    CLOSED_POLICY,
    build_content_policy,
    redirect_to,
    render_page,
    say_refusal,
)
from api.web_kit.page_context import (
    LATE_TEXT,
    NO_FORM_TEXT,
    CurrentVisitor,
    Form,
    MultipartReader,
    SignedForm,
    Visitor,
)
from rollout.engine.decide.permissions import ROLES_BY_PERMISSION, Permission, may_upload
from rollout.features.uploads.upload_runs import (
    ADVICE,
    DECISIONS_FILE,
    MAX_FILE_BYTES,
    MAX_MINUTES,
    MAX_ROWS,
    PREDICTIONS_FILE,
    UploadOptions,
    UploadRequest,
    UploadResult,
    UploadRun,
    UploadRuns,
    has_files,
)
from rollout.kernel.errors import NotAllowedError, RefusalError
from rollout.kernel.policy_files.reader import InvalidPolicyError

router = APIRouter()
RELOAD_SECONDS: Final = 3
RECEIVE_SECONDS: Final = 300.0
MAX_SKIPPED_BYTES: Final = 100_000_000
"""Bytes that are received and dropped after a refusal, so that the browser shows it."""
WRITE_BYTES: Final = 256 * 2**10
FILE_FIELDS: Final = {"predictions": PREDICTIONS_FILE, "decisions": DECISIONS_FILE}
READING_CHOICES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "date-format": (
        "Times",
        ("day-first", "month-first", "year-first", "unix-seconds", "unix-milliseconds"),
    ),
    "delimiter": ("Between columns", (",", ";", "|", "tab")),
    "decimal": ("Decimal sign", (".", ",")),
    "percent": ("Confidence is in percent", ("true", "false")),
    "encoding": ("Encoding", ("utf-8", "latin-1", "cp1252", "utf-16")),
    "same-form": ("Texts that differ in form only are the same", ("true", "false")),
    "labels": ("Decisions are of a sample of cases, or of all", ("sampled", "all")),
    "equal-sides": ("The files are two sides, though they agree everywhere", ("true",)),
    "backtest": ("The model predicted later and saw no decision (backtest)", ("true", "false")),
}
"""Options of `rollout init` by field, with label and values; without one they are recognized."""
EXPOSURES: Final = {
    "": "The file says it, or it is unknown",
    "blind": "Nothing of the prediction (blind)",
    "assisted": "The prediction (assisted)",
    "unknown": "Unknown",
}
DEFAULT_OPTIONS: Final = UploadOptions()
log = logging.getLogger("rollout.uploads")


@router.get("/files")
def show_files(request: Request, visitor: CurrentVisitor) -> Response:
    """Show the user's run with its result, and the form."""
    _require_uploader(visitor)
    return _render_files(request, visitor)


@router.post("/files")
async def submit_files(request: Request, visitor: CurrentVisitor, form: SignedForm) -> Response:
    """Receive files and start a run, start one over kept files, or cancel and delete.

    Also who may upload no more can delete what is kept.
    """
    runs = _get_runs(request)
    if form.has_field("cancel"):
        await run_in_threadpool(runs.cancel, visitor.name)
        return redirect_to("/files" if may_upload(visitor.caller) else "/settings")
    _require_uploader(visitor)
    try:
        if is_upload(request.scope):
            await _receive_upload(request.state.multipart, visitor, runs, form)
        else:
            await run_in_threadpool(
                runs.start_again, visitor.name, _parse_options(form), at=visitor.at
            )
    except (RefusalError, OSError) as error:
        if is_upload(request.scope):
            await _skip_rest(request.state.multipart)
        refusal = error if isinstance(error, RefusalError) else _refuse_storing(error)
        render = partial(_render_files, request, visitor, form=form, error=refusal)
        return await run_in_threadpool(render)
    return redirect_to("/files")


@router.get("/files/policy")
def send_policy(request: Request, visitor: CurrentVisitor) -> Response:
    """Send the policy of the result as a file."""
    result = _find_result(request, visitor)
    if result is None:
        return redirect_to("/files")
    headers = {
        "Content-Disposition": 'attachment; filename="policy.yaml"',
        "Content-Security-Policy": CLOSED_POLICY,
        "Cache-Control": "no-store",
    }
    return Response(result.policy_text, media_type="application/yaml", headers=headers)


@router.get("/files/report")
def show_upload_report(request: Request, visitor: CurrentVisitor) -> Response:
    """Show the report of the replay, under its own content policy."""
    result = _find_result(request, visitor)
    if result is None:
        return redirect_to("/files")
    report = result.report
    headers = {
        "Content-Security-Policy": build_content_policy(report),
        "Cache-Control": "no-store",
    }
    return HTMLResponse(report, headers=headers)


def _require_uploader(visitor: Visitor) -> None:
    if not may_upload(visitor.caller):
        roles = " or ".join(sorted(ROLES_BY_PERMISSION[Permission.UPLOAD_FILES]))
        raise NotAllowedError(
            f"{visitor.name} may not {Permission.UPLOAD_FILES.value}; it needs the role {roles}:"
            " ask an admin"
        )


def _get_runs(request: Request) -> UploadRuns:
    runs: UploadRuns = request.app.state.upload_runs
    return runs


def _find_result(request: Request, visitor: Visitor) -> UploadResult | None:
    """Return the user's result; None if it is not here, which the page of the form explains."""
    _require_uploader(visitor)
    run = _get_runs(request).find_run(visitor.name, at=visitor.at)
    return None if run is None else run.result


async def _receive_upload(
    reader: MultipartReader, visitor: Visitor, runs: UploadRuns, form: Form
) -> None:
    """Store both files in a folder of their own and start the run.

    Raises:
        RefusalError: a file is missing or too large, or no run may be started.
    """
    options = await run_in_threadpool(_parse_options, form)
    await run_in_threadpool(runs.open_folder)
    with runs.receive(visitor.name) as folder:
        try:
            async with asyncio.timeout(RECEIVE_SECONDS):
                await _store_files(reader, folder)
        except (TimeoutError, ClientDisconnect):
            raise RefusalError(LATE_TEXT) from None
        request = UploadRequest(folder, options, keeps_files=form.has_field("keep"))
        await run_in_threadpool(partial(runs.run_files, visitor.name, request, at=visitor.at))


def _refuse_storing(error: OSError) -> RefusalError:
    """Log why files could not be stored, for who runs the service, and return the user's error."""
    log.warning("uploaded files could not be stored: %s", error)
    return RefusalError(
        "the service could not store the files: its disk is full or fails; tell who runs it, or"
        f" run {ADVICE}"
    )


async def _store_files(reader: MultipartReader, folder: Path) -> None:
    stored = set()
    async for field, content in reader.iterate_files():
        name = FILE_FIELDS.get(field, "")
        if not name or (folder / name).exists():
            raise RefusalError(NO_FORM_TEXT)
        if await _store_file(folder / name, content):
            stored.add(name)
    if len(stored) < len(FILE_FIELDS):
        raise RefusalError(
            "choose two files that are not empty: predictions of the model, and human decisions"
        )


async def _store_file(path: Path, content: AsyncIterator[bytes]) -> int:
    """Write a file bit by bit, on a thread; return its size.

    Raises:
        RefusalError: it is too large.
    """
    size, waiting = 0, bytearray()
    with await run_in_threadpool(path.open, "xb") as file:
        async for chunk in content:
            size += len(chunk)
            if size > MAX_FILE_BYTES:
                raise RefusalError(
                    f"a file has at most {MAX_FILE_BYTES // 10**6} MB here, and {path.name} has"
                    f" more; run {ADVICE}"
                )
            waiting += chunk
            if len(waiting) >= WRITE_BYTES:
                await run_in_threadpool(file.write, bytes(waiting))
                waiting.clear()
        await run_in_threadpool(file.write, bytes(waiting))
    return size


async def _skip_rest(reader: MultipartReader) -> None:
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(RECEIVE_SECONDS):
            await reader.skip_rest(MAX_SKIPPED_BYTES)


def _parse_options(form: Form) -> UploadOptions:
    """Return the options of a form.

    Raises:
        InvalidPolicyError: the policy is invalid; one line per fault.
        RefusalError: another field is.
    """
    policy_text = form.get_raw_text("text")
    if policy_text.strip():
        parse_typed_policy(policy_text)
    exposure = form.get_text("exposure")
    readings = {name: form.get_text(name) for name in (*READING_CHOICES, "unsure", "label")}
    choices = {name: values for name, (_, values) in READING_CHOICES.items()}
    if exposure not in EXPOSURES or any(
        text and text not in choices.get(name, (text,)) for name, text in readings.items()
    ):
        raise RefusalError(NO_FORM_TEXT)
    return UploadOptions(
        rollout=form.get_text("name") or DEFAULT_OPTIONS.rollout,
        timezone=form.get_text("timezone") or DEFAULT_OPTIONS.timezone,
        exposure=exposure,
        readings=tuple((f"--{name}", text) for name, text in readings.items() if text),
        policy_text=policy_text if policy_text.strip() else "",
    )


def _render_files(
    request: Request,
    visitor: Visitor,
    *,
    form: Form | None = None,
    error: RefusalError | None = None,
) -> Response:
    run = _get_runs(request).find_run(visitor.name, at=visitor.at)
    response = render_page(
        request,
        visitor,
        "files",
        422 if error else 200,
        run=run,
        result=None if run is None else run.result,
        has_files=run is not None and not run.is_running and has_files(run),
        limits={
            "megabytes": MAX_FILE_BYTES // 10**6,
            "rows": f"{MAX_ROWS:,}",
            "minutes": MAX_MINUTES,
        },
        readings=READING_CHOICES,
        exposures=EXPOSURES,
        **_build_form_context(run, form, error),
    )
    if run is not None and run.is_running and error is None:  # a typed text would be lost by it
        response.headers["Refresh"] = str(RELOAD_SECONDS)
    return response


def _build_form_context(
    run: UploadRun | None, form: Form | None, error: RefusalError | None
) -> dict[str, object]:
    """Return what was typed: in this form, else for the last run, else the defaults."""
    options = DEFAULT_OPTIONS if run is None else run.subject.options
    typed: dict[str, object] = {
        "name": options.rollout,
        "timezone": options.timezone,
        "exposure": options.exposure,
        **{option.removeprefix("--"): text for option, text in options.readings},
    }
    text = options.policy_text
    if form is not None:
        typed = {name: form.get_text(name) for name in (*form.fields,) if name != "text"}
        text = form.get_raw_text("text")
    context = build_error_context(error, text, "")
    if error is not None and not isinstance(error, InvalidPolicyError):
        context["errors"] = {"": say_refusal(error)}
    return {**context, "typed": {**typed, "text": escape_for_textarea(text)}}
