"""Connections that are kept alive, and problems: the service's answer when it refuses a request."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ._tensor import Bytes


class GraddError(Exception):
    """A problem document: the service's own words on what is wrong, and where.

    `slug` is the stable part of its type ("shape-mismatch"), `pointer` a JSON Pointer into the request;
    `expected` and `actual` are shapes, None standing for a dimension that may be any. An answer that is no
    problem document has the slug "". `attempts` is how many times the request was sent.
    """

    attempts = 1

    def __init__(
        self,
        status: int,
        slug: str,
        detail: str,
        pointer: str | None = None,
        expected: list[int | None] | None = None,
        actual: list[int] | None = None,
    ) -> None:
        super().__init__(status, slug, detail, pointer, expected, actual)
        self.status = status
        self.slug = slug
        self.detail = detail
        self.pointer = pointer
        self.expected = expected
        self.actual = actual

    def __str__(self) -> str:
        text = f"{self.status} {self.slug or 'without a problem document'}: {self.detail}"
        if self.pointer:
            text += f", at {self.pointer}"
        if self.expected is not None:
            text += f" (expected {json.dumps(self.expected)}, actual {json.dumps(self.actual)})"
        return text


def error_of(status: int, data: bytearray) -> GraddError:
    try:
        problem = json.loads(data)
        slug = problem["type"].rpartition(":")[2]
        return GraddError(
            status,
            slug,
            problem.get("detail", ""),
            problem.get("pointer"),
            problem.get("expected"),
            problem.get("actual"),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return GraddError(status, "", data[:200].decode("utf-8", "replace"))


# --- connections --------------------------------------------------------------------------------------


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


# Bytes up to which a body is copied together, rather than sent part by part.
SMALL = 1 << 16


class Reply(NamedTuple):
    status: int
    head: http.client.HTTPMessage
    data: bytearray


def _is_open(connection: http.client.HTTPConnection) -> bool:
    """Whether the peer still holds an idle connection: anything to be read means that it does not."""
    if connection.sock is None:
        return False
    timeout = connection.sock.gettimeout()
    connection.sock.settimeout(0)
    try:
        if isinstance(
            connection.sock, ssl.SSLSocket
        ):  # it has no MSG_PEEK; what TLS says to itself is no answer
            connection.sock.recv(1)
        else:
            connection.sock.recv(1, socket.MSG_PEEK)
        return False
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False
    finally:
        connection.sock.settimeout(timeout)


def _read(response: http.client.HTTPResponse) -> bytearray:
    if response.length is None:
        return bytearray(response.read())
    data = bytearray(response.length)
    view = memoryview(data)
    done = 0
    while done < len(data):
        size = response.readinto(view[done:])
        if not size:
            raise http.client.IncompleteRead(bytes(view[:done]), len(data) - done)
        done += size
    return data


def _tls(ca: str | None, certificate: str | tuple[str, str] | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as wrong:
        raise ValueError(f"ca={ca!r} cannot be read: {wrong}") from None
    if certificate is None:
        return context
    try:
        context.load_cert_chain(*([certificate] if isinstance(certificate, str) else certificate))
    except OSError as wrong:
        raise ValueError(f"certificate={certificate!r} cannot be read: {wrong}") from None
    return context


class Pool:
    """Kept-alive connections to one address. Each is one thread's while it carries a request."""

    def __init__(
        self,
        url: str,
        timeout: float | None,
        ca: str | None = None,
        certificate: str | tuple[str, str] | None = None,
    ) -> None:
        self._timeout = timeout
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._context: ssl.SSLContext | None = None
        scheme, _, rest = url.partition(":")
        if scheme != "https" and (ca is not None or certificate is not None):
            raise ValueError(f"ca and certificate are for https:// addresses, which {url!r} is not")
        self.prefix = ""
        self._path = self._host = ""
        self._port: int | None = None
        if scheme == "unix" and rest:
            self._path = rest
            return
        parts = urllib.parse.urlsplit(url)
        known = parts.scheme in ("http", "https")
        if not known or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise ValueError(f"{url!r} is no address: give http://HOST:PORT, https://HOST:PORT or unix:PATH")
        self._host, self._port = parts.hostname, parts.port
        self.prefix = parts.path.rstrip("/")
        if parts.scheme == "https":
            self._context = _tls(ca, certificate)

    def _new(self) -> http.client.HTTPConnection:
        if self._path:
            return _UnixConnection(self._path, self._timeout)
        if self._context:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout, context=self._context
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    def _take(self) -> http.client.HTTPConnection:
        with self._lock:
            if self._process != os.getpid():  # after a fork the connections are the parent's
                self._idle, self._process = [], os.getpid()
            while self._idle:
                connection = self._idle.pop()
                if _is_open(connection):
                    return connection
                connection.close()
        return self._new()

    def exchange(self, method: str, target: str, head: Mapping[str, str], body: Sequence[Bytes]) -> Reply:
        """One request and its answer. What LOST says where there was none."""
        connection = self._take()
        refused = False
        try:
            if connection.sock is None:
                connection.connect()
            connection.putrequest(method, self.prefix + target, skip_accept_encoding=True)
            for name, value in head.items():
                connection.putheader(name, value)
            try:
                connection.endheaders()
                for part in filter(len, body):
                    connection.send(part)
            except (BrokenPipeError, ConnectionResetError):
                refused = True  # perhaps a body that is refused unread: the answer is there all the same
            response = connection.getresponse()
            reply = Reply(response.status, response.headers, _read(response))
            response.close()  # one without a body is not at its end until it is told so
        except BaseException:
            connection.close()
            raise
        if refused or response.will_close:
            connection.close()
        else:
            with self._lock:
                self._idle.append(connection)
        return reply

    def close(self) -> None:
        with self._lock:
            while self._idle:
                self._idle.pop().close()


# What is raised when a request or its answer is lost on the way.
LOST = (OSError, http.client.BadStatusLine, http.client.IncompleteRead)


def is_final(lost: BaseException) -> bool:
    """Whether TLS was refused, by either side: the next attempt would be, too."""
    passing = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    return isinstance(lost, ssl.SSLError) and not isinstance(lost, passing)


def reason(lost: BaseException) -> str:
    if isinstance(lost, (ConnectionRefusedError, FileNotFoundError)):
        return f"nobody listens there ({lost})"
    return str(lost) or repr(lost)
