"""The few calls that all boxes make: ask, look whether a person has decided, send records."""

import json
import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import httpx


class Service:
    """A rollout, as its boxes ask it.

    Doubt is for the caller: whatever raises here (no network, 503, a key that was revoked) means
    that people decide.
    """

    def __init__(self, url: str, key: str, rollout: str, transport: Any = None) -> None:
        """Connect; `transport` is another one for tests."""
        headers = {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(
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

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Say what the model predicted, and return who decides."""
        told: dict[str, Any] = self._json(self._http.post("assignments", json=question))
        reason = (told["recorded"] or {}).get("reason")
        if reason:  # the prediction was not kept as this box sent it
            print(f"{question['key']}: {reason}", file=sys.stderr)
        return told

    def scope(self, **asked: Any) -> dict[str, Any]:
        """Return a snapshot of what is allowed where."""
        return self._json(self._http.get("scope", params=asked))

    def verdict(self, key: str, lever: str) -> str | None:
        """Return what a person has said of a case, None as long as nobody has."""
        found = self._json(self._http.get(f"cases/{key}"))
        said = [d["answers"].get(lever) for d in found["decisions"] if not d["unsure"]]
        return said[-1] if said else None

    def send(self, *items: dict[str, Any]) -> list[dict[str, Any]]:
        """Send records; sending the same again is safe. Return what became of each."""
        answers: list[dict[str, Any]] = self._json(self._http.post("records", json=items))["items"]
        return answers

    def send_lines(self, lines: list[str]) -> list[dict[str, Any]]:
        """Send spooled records, one JSON text a line. Return what became of each."""
        headers = {"Content-Type": "application/x-ndjson"}
        body = "".join(f"{line}\n" for line in lines)
        answer = self._http.post("records", content=body, headers=headers)
        answer.raise_for_status()
        return [json.loads(line) for line in answer.text.splitlines()]

    @staticmethod
    def _json(answer: httpx.Response) -> Any:
        answer.raise_for_status()
        return answer.json()


def now() -> str:
    """Return the instant, with its offset."""
    return datetime.now(UTC).isoformat()


def question(site: str, key: str, version: str, label: str, confidence: float) -> dict[str, Any]:
    """Return the question about one picture, with the model's prediction in it."""
    prediction = {"answers": {"alarm": label}, "confidence": confidence}
    return {
        "site": site,
        "at": now(),
        "key": key,
        "version": version,
        "confidence": confidence,
        "prediction": prediction,
    }


def action(
    key: str, done: str, by: str, version: str = "", permit: str | None = None
) -> dict[str, Any]:
    """Return the record of what was done about a case."""
    said = {"kind": "action", "key": key, "lever": "alarm", "action": done, "by": by, "at": now()}
    return said | ({"version": version, "permit": permit} if by == "model" else {})
