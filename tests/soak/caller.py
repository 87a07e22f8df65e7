"""Calls whose answers are looked at, whatever they are, and counted."""

from __future__ import annotations

import collections
import http.client
import json
import pathlib
import re
import threading
from typing import Any

import graphs

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROBLEMS = {
    slug: int(status)
    for slug, status in re.findall(
        r'^NN_ERROR\(\w+, "([a-z-]+)", (\d+),', (ROOT / "core" / "errors.def").read_text(), re.MULTILINE
    )
}
# That any request may get: the service is full, or stops.
ALWAYS = {"busy", "out-of-memory", "too-many-requests"}


class Gone(Exception):
    """The connection ended before the answer had come whole."""


class Tally:
    """What was answered, and what should not have been. Shared by all threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.answers: collections.Counter[tuple[str, str]] = collections.Counter()
        self.events: collections.Counter[str] = collections.Counter()
        self.faults: dict[str, list[str]] = collections.defaultdict(list)
        self.on_fault = print

    def answered(self, kind: str, what: str) -> None:
        with self.lock:
            self.answers[kind, what] += 1

    def count(self, event: str, by: int = 1) -> None:
        with self.lock:
            self.events[event] += by

    def fault(self, sort: str, text: str) -> None:
        with self.lock:
            self.faults[sort].append(text)
        self.on_fault(f"{sort}: {text}")


class Answer:
    def __init__(self, response: http.client.HTTPResponse, body: bytes) -> None:
        self.status, self.headers, self.body = response.status, response.headers, body
        self.type = (response.headers["Content-Type"] or "").partition(";")[0]
        self.ok = self.status < 300
        self._members: dict[str, Any] | None = None

    @property
    def members(self) -> dict[str, Any]:
        if self._members is None:
            self._members = graphs.decode(self.type, self.body)
        return self._members

    @property
    def slug(self) -> str:
        return self.members["type"].rpartition(":")[2] if self.type == "application/problem+json" else ""


class Client:
    """One connection, kept open. `source`: the address that it comes from, which is who it is to the daemon."""

    def __init__(self, port: int, tally: Tally, token: str, source: str = "127.0.0.1") -> None:
        self.port, self.tally, self.token, self.source = port, tally, token, source
        self.connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self.connection:
            self.connection.close()
        self.connection = None

    def send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        if not self.connection:
            self.connection = http.client.HTTPConnection(
                "127.0.0.1", self.port, timeout=300, source_address=(self.source, 0)
            )
        try:
            self.connection.request(method, path, body, headers)
            response = self.connection.getresponse()
            answer = Answer(response, response.read())
        except (OSError, http.client.HTTPException) as lost:
            self.close()
            raise Gone(str(lost)) from lost
        if (answer.headers["Connection"] or "").lower() == "close":
            self.close()
        return answer

    def call(
        self,
        kind: str,
        method: str,
        path: str,
        body: tuple[str, bytes] | None = None,
        *refusals: str,
        key: str | None = None,
        token: str | None = None,
        **headers: str,
    ) -> Answer:
        """`kind`: what it counts as. `refusals`: the problems that may be answered."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        token = self.token if token is None else token
        if token:
            sent["Authorization"] = f"Bearer {token}"
        if key:
            sent["Idempotency-Key"] = key
        if body:
            sent["Content-Type"] = body[0]
        elif method in ("POST", "PUT", "PATCH"):
            raise ValueError("a body is missing")
        answer = self.send(method, path, body[1] if body else None, sent)
        wrong = self.wrong(answer, set(refusals) | ALWAYS | ({"in-flight"} if key else set()))
        if wrong:
            shown = body[1][:600] if body else b""
            self.tally.fault("answers", f"{kind}: {method} {path} {shown!r}: {wrong}: {answer.body[:300]!r}")
        self.tally.answered(kind, answer.slug or str(answer.status))
        return answer

    @staticmethod
    def wrong(answer: Answer, refusals: set[str]) -> str:
        try:
            if answer.status in (200, 201):
                if answer.type in (graphs.JSON, graphs.FILE):
                    _ = answer.members
                return ""
            if answer.status == 304:
                return "a body" if answer.body else ""
            slug = answer.slug
            if PROBLEMS.get(slug) != answer.status or answer.members["status"] != answer.status:
                return f"status {answer.status} with {slug!r}"
            if slug not in refusals:
                return f"{slug} is no answer to this"
            if answer.status in (429, 503) and int(answer.headers["Retry-After"]) < 1:
                return "Retry-After"
        except (ValueError, KeyError, TypeError, json.JSONDecodeError) as bad:
            return f"status {answer.status}, {type(bad).__name__}: {bad}"
        return ""
