"""Requests: sent again until they have an answer, and read in the encoding in which that came."""

from __future__ import annotations

import collections
import email.utils
import json
import logging
import os
import random
import threading
import time
import urllib.parse
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union

from ._document import (
    JSON,
    SAFETENSORS,
    Answer,
    decode_document,
    encode_document,
    etag,
    given,
    json_text,
)
from ._tensor import Bytes, Tensors
from ._transport import LOST, SMALL, GraddError, Pool, Reply, error_of, is_final, reason

if TYPE_CHECKING:
    from typing_extensions import Self

__version__ = "0.1.0"

_log = logging.getLogger("gradd")

IfMatch = Union[str, Mapping[str, Any], None]


def path_of(*segments: str, **query: str | None) -> str:
    for segment in segments:
        if not isinstance(segment, str):
            raise TypeError(f"a name is a text, not {segment!r}")
    path = "".join("/" + urllib.parse.quote(segment, safe="") for segment in segments)
    asked = urllib.parse.urlencode(given(**query), safe=",")
    return f"{path}?{asked}" if asked else path


def _seconds(text: str | None) -> float:
    """Of a Retry-After: seconds, or a date."""
    if not text:
        return 0.0
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0


def _is_passing(error: GraddError) -> bool:
    return error.status in (429, 503) or (error.status == 409 and error.slug == "in-flight")


class Requests:
    """An address, and how requests to it are made. Client has its calls."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        token: str | None = None,
        *,
        ca: str | None = None,
        certificate: str | tuple[str, str] | None = None,
        timeout: float | None = 60.0,
        retries: int = 6,
        backoff: float = 0.1,
        max_wait: float = 30.0,
        cached_pulls: int = 4,
    ) -> None:
        self.url = url
        self._settings = {
            "ca": ca,
            "certificate": certificate,
            "timeout": timeout,
            "retries": retries,
            "backoff": backoff,
            "max_wait": max_wait,
            "cached_pulls": cached_pulls,
        }
        self._pool = Pool(url, timeout, ca, certificate)
        self._head = {"User-Agent": f"gradd-python/{__version__}"}
        if token and not (token.isascii() and token.isprintable() and " " not in token):
            raise ValueError(
                "token: it holds a blank, the end of a line, or another character that no token has"
            )
        if token:
            self._head["Authorization"] = f"Bearer {token}"
        self._retries = retries
        self._backoff = backoff
        self._max_wait = max_wait
        self._cached_pulls = cached_pulls
        self._pulls: collections.OrderedDict[str, tuple[str, bytes]] = collections.OrderedDict()
        self._lock = threading.Lock()  # of the pulls

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # connections, which threads may share, and so may copies

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "token": "Authorization" in self._head, **self._settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        token = os.environ.get("GRADD_TOKEN") if state["token"] else None
        self.__init__(**{**state, "token": token})  # type: ignore[misc]

    def close(self) -> None:
        """Closes the idle connections. The client can still be used, and opens new ones then."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _wait(self, attempt: int, asked: float) -> float:
        """Seconds to wait after a failed attempt. The random part keeps a fleet from coming back as one."""
        longest = min(self._max_wait, self._backoff * 2.0 ** (attempt - 1))
        return min(self._max_wait, asked + random.uniform(0, longest))

    def _send(self, method: str, target: str, head: Mapping[str, str], body: Sequence[Bytes] = ()) -> Reply:
        """A request and its answer, once it has a good one."""
        size = sum(len(part) for part in body)
        head = {**self._head, **head}
        if body:
            head["Content-Length"] = str(size)
        if size <= SMALL:
            body = [b"".join(body)]
        attempt = 0
        while True:
            attempt += 1
            asked = 0.0
            failure: Exception
            try:
                reply = self._pool.exchange(method, target, head, body)
            except LOST as lost:
                attempts = "1 attempt" if attempt == 1 else f"{attempt} attempts"
                failure = ConnectionError(
                    f"{self.url}: no answer to {method} {target} in {attempts}: {reason(lost)}"
                )
                failure.__cause__ = lost
                if is_final(lost):
                    raise failure
            else:
                if reply.status < 300 or reply.status == 304:
                    return reply
                failure = error_of(reply.status, reply.data)
                failure.attempts = attempt
                asked = _seconds(reply.head.get("Retry-After"))
                if not _is_passing(failure) or asked > self._max_wait:
                    raise failure
            if attempt > self._retries:
                raise failure
            wait = self._wait(attempt, asked)
            _log.info("%s %s: again in %.3f s: %s", method, target, wait, failure)
            time.sleep(wait)

    def _answer(self, method: str, target: str, head: Mapping[str, str], body: Sequence[Bytes] = ()) -> Any:
        """What a good answer says: a dict of either encoding, or a text."""
        reply = self._send(method, target, head, body)
        encoding = reply.head.get_content_type()
        if encoding == SAFETENSORS:
            return decode_document(reply.data)
        return json.loads(reply.data) if encoding == JSON else reply.data.decode()

    def _remember(self, target: str, pull: tuple[str, bytes]) -> None:
        with self._lock:
            self._pulls[target] = pull
            self._pulls.move_to_end(target)
            while len(self._pulls) > self._cached_pulls:
                self._pulls.popitem(last=False)

    def _get(self, path: str) -> Answer:
        answer: Answer = self._answer("GET", path, {"Accept": JSON})
        return answer

    def _change(
        self,
        method: str,
        path: str,
        body: Sequence[Bytes],
        encoding: str,
        key: str | None,
        if_match: IfMatch,
    ) -> Answer:
        head = {"Accept": encoding, "Idempotency-Key": key or str(uuid.uuid4())}
        if body:
            head["Content-Type"] = encoding
        if if_match is not None:
            head["If-Match"] = if_match if isinstance(if_match, str) else etag(if_match)
        answer: Answer = self._answer(method, path, head, body)
        return answer

    def _change_json(
        self,
        method: str,
        path: str,
        document: Mapping[str, Any] | None = None,
        key: str | None = None,
        if_match: IfMatch = None,
        argument: str = "document",
    ) -> Answer:
        body = [] if document is None else [json_text(argument, document).encode()]
        return self._change(method, path, body, JSON, key, if_match)

    def request(
        self,
        method: str,
        path: str,
        members: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Tensors] | None = None,
        *,
        query: Mapping[str, str | Sequence[str]] | None = None,
        if_match: IfMatch = None,
        key: str | None = None,
    ) -> Any:
        """Any request, such as one that has no method here: `members` of the document that is sent, and
        `tensors`, by map and name ({"inputs": {"x": …}}), with which it travels as safetensors. Answers are
        dicts, or texts where they are no documents. All but GET carry an Idempotency-Key."""
        target = f"{path}?{urllib.parse.urlencode(query, doseq=True)}" if query else path
        body: list[Bytes] = []
        encoding = JSON
        if tensors is not None:
            encoding, body = SAFETENSORS, encode_document(members or {}, tensors)
        elif members is not None:
            body = [json_text("members", members).encode()]
        if method in ("GET", "HEAD"):
            if body or if_match is not None or key is not None:
                raise ValueError(f"a {method} has neither a document, nor if_match, nor key")
            return self._answer(method, target, {"Accept": f"{JSON}, */*"})
        return self._change(method, target, body, encoding, key, if_match)
