"""What the example clients share: their options, and calls of the API."""

import json
import sys
from argparse import ArgumentParser
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import httpx2


class Service:
    """The API of one rollout.

    Every call can raise an error, for example without a network, on a 503 or after the key was
    revoked. Treat every error as "a human decides".
    """

    def __init__(self, url: str, key: str, rollout: str, transport: Any = None) -> None:
        """Open a connection; tests pass their own `transport`."""
        headers = {"Authorization": f"Bearer {key}"}
        self._http = httpx2.Client(
            base_url=f"{url}/v1/rollouts/{rollout}/",
            headers=headers,
            timeout=5,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._http.close()

    def request_assignment(self, question: dict[str, Any]) -> dict[str, Any]:
        """Return who decides the case; the prediction is stored."""
        assignment: dict[str, Any] = _parse(self._http.post("assignments", json=question))
        reason = (assignment["recorded"] or {}).get("reason")
        if reason:  # the prediction was not stored as sent
            print(f"{question['key']}: {reason}", file=sys.stderr)
        return assignment

    def fetch_scope(self, **parameters: Any) -> dict[str, Any]:
        """Return a snapshot of the scope."""
        return _parse(self._http.get("scope", params=parameters))

    def fetch_decision(self, key: str, lever: str) -> str | None:
        """Return the latest human decision on a case, or None."""
        case = _parse(self._http.get(f"cases/{key}"))
        labels = [d["answers"].get(lever) for d in case["decisions"] if not d["unsure"]]
        return labels[-1] if labels else None

    def send(self, *items: dict[str, Any]) -> list[dict[str, Any]]:
        """Send records and return the result of each; sending twice is safe."""
        return _parse(self._http.post("records", json=items))["items"]

    def send_lines(self, lines: list[str]) -> list[dict[str, Any]]:
        """Send records, one JSON text a line, and return the result of each."""
        headers = {"Content-Type": "application/x-ndjson"}
        body = "".join(f"{line}\n" for line in lines)
        response = self._http.post("records", content=body, headers=headers)
        response.raise_for_status()
        return [json.loads(line) for line in response.text.splitlines()]


def _parse(response: httpx2.Response) -> Any:
    response.raise_for_status()
    return response.json()


def build_parser(description: str) -> ArgumentParser:
    """Return a parser with the options of all clients."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--url", required=True, help="address of the service")
    parser.add_argument("--key", required=True, help="an API key with the role ingest-predictions")
    parser.add_argument("--rollout", required=True)
    parser.add_argument("--site", required=True)
    parser.add_argument("--version", required=True, help="of the model")
    return parser


def build_question(
    site: str, key: str, version: str, label: str, confidence: float
) -> dict[str, Any]:
    """Return a question about one picture, with the model's prediction."""
    prediction = {"answers": {"alarm": label}, "confidence": confidence}
    return {
        "site": site,
        "at": _format_now(),
        "key": key,
        "version": version,
        "confidence": confidence,
        "prediction": prediction,
    }


def build_action(key: str, action: str, by: str) -> dict[str, Any]:
    """Return the record of an action on a case, done now."""
    record = {"kind": "action", "key": key, "lever": "alarm", "action": action, "by": by}
    return record | {"at": _format_now()}


def _format_now() -> str:
    return datetime.now(UTC).isoformat()
