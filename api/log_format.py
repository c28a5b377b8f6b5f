"""Log lines as text, or as JSON objects without personal data."""

import json
import logging
from datetime import UTC, datetime
from traceback import extract_tb
from typing import Any

from api.request_log import request_id

MAX_FRAMES = 20


class TextFormatter(logging.Formatter):
    """Formats a record as text in which only its first line begins without spaces.

    Otherwise a line break in a message or an exception's text could forge another record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        first, *others = super().format(record).splitlines() or [""]
        return "\n".join([first, *(f"    {line}" for line in others)])


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object.

    An exception is its type and the lines of code, without its text, which may hold names. One
    among the arguments of a message is its type.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _format_message(record),
            **getattr(record, "fields", {}),
        }
        if request_id.get():
            line["request_id"] = request_id.get()
        if record.exc_info and record.exc_info[1] is not None:
            line |= _describe_exception(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False)


def _format_message(record: logging.LogRecord) -> str:
    """Return the message with the types of exceptions instead of their texts."""
    if not isinstance(record.args, tuple) or not record.args:
        return record.getMessage()
    args = (type(a).__name__ if isinstance(a, BaseException) else a for a in record.args)
    return str(record.msg) % tuple(args)


def _describe_exception(error: BaseException) -> dict[str, Any]:
    frames = extract_tb(error.__traceback__)[-MAX_FRAMES:]
    stack = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return {"exception": type(error).__name__, "stack": stack}


def build_log_config(log_format: str) -> dict[str, Any]:
    """Return the configuration of `logging`: warnings as text, or JSON with an access log."""
    is_json = log_format == "json"
    text_formatter = {"()": TextFormatter, "format": "%(levelname)s: %(message)s"}
    formatter = {"()": JsonFormatter} if is_json else text_formatter
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": formatter},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {"rollout.access": {"level": "INFO" if is_json else "WARNING"}},
    }
