"""A client of gradd, the gradient service: its calls as methods, tensors as arrays, retries built in.

    import gradd

    with gradd.Client("http://127.0.0.1:8080") as client:
        client.create({"name": "line", "inputs": {"x": {"shape": [2]}},
                       "layers": [{"op": "linear", "out_features": 1}],
                       "loss": {"op": "mse"}, "optimizer": {"op": "sgd", "lr": 0.1}})
        answer = client.backward("line", {"x": [[1, 2]]}, targets={"y": [[5]]}, apply=True)
        print(answer["loss"], answer["applied_version"])

It needs the standard library alone. Where numpy is installed, tensors in answers are its arrays, elsewhere
nested lists. `gradd.torch` makes a remote model a layer of a local PyTorch one.
"""

from __future__ import annotations

import collections
import email.utils
import http.client
import itertools
import json
import logging
import math
import os
import random
import socket
import struct
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Union

_numpy: Any
try:
    import numpy as _numpy
except ImportError:
    _numpy = None

__all__ = ["Client", "GraddError", "Tensor", "bfloat16", "etag", "pack", "unpack"]
__version__ = "0.1.0"

_log = logging.getLogger(__name__)

# --- tensors ------------------------------------------------------------------------------------------


class _Dtype(NamedTuple):
    size: int  # bytes of an element
    code: str  # of struct; bfloat16 has none, and travels as the upper half of a float
    is_float: bool


_DTYPES = {
    "F64": _Dtype(8, "d", True),
    "F32": _Dtype(4, "f", True),
    "F16": _Dtype(2, "e", True),
    "BF16": _Dtype(2, "H", True),
    "I64": _Dtype(8, "q", False),
    "I32": _Dtype(4, "i", False),
    "U8": _Dtype(1, "B", False),
    "BOOL": _Dtype(1, "?", False),
}


class Tensor(NamedTuple):
    """A tensor as it travels: its type by name ("F32"), its shape, its elements little-endian in row-major
    order. Taken wherever a tensor is; the way to send what the client knows no conversion from."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | bytearray | memoryview


# Numbers, nested sequences of them, arrays of numpy, anything else that exports a buffer, or a Tensor.
Array = Any
Tensors = Mapping[str, Array]
Answer = dict[str, Any]
IfMatch = Union[str, Mapping[str, Any], None]
Bytes = Union[bytes, bytearray, memoryview]


def bfloat16(values: Array) -> Tensor:
    """Values rounded to bfloat16 (to nearest, ties to even), which neither numpy nor Python has."""
    dtype, shape, data = _narrow(values, "F32")
    count = math.prod(shape)
    if _numpy is not None:
        bits = _numpy.frombuffer(data, "<u4")
        rounded = (bits + (0x7FFF + (bits >> 16 & 1))) >> 16
        rounded = _numpy.where(bits & 0x7FFFFFFF > 0x7F800000, bits >> 16 | 0x40, rounded)  # NaN stays NaN
        return Tensor("BF16", shape, rounded.astype("<u2").tobytes())
    words = struct.unpack(f"<{count}I", data)
    halves = [
        bits >> 16 | 0x40 if bits & 0x7FFFFFFF > 0x7F800000 else (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        for bits in words
    ]
    return Tensor("BF16", shape, struct.pack(f"<{count}H", *halves))


def _narrow(values: Array, dtype: str) -> Tensor:
    """Values in another floating type."""
    if dtype == "BF16":
        return bfloat16(values)
    if dtype not in _DTYPES or not _DTYPES[dtype].is_float:
        raise ValueError(f"no floating type is called {dtype!r}")
    tensor = _tensor_of(values)
    if tensor.dtype == dtype:
        return tensor
    if _numpy is not None:
        with _numpy.errstate(over="ignore"):  # what becomes infinite, the service refuses by name
            data = _array_of(tensor).astype(_numpy_code(dtype)).tobytes()
        return Tensor(dtype, tensor.shape, data)
    flat = _elements_of(tensor)
    return Tensor(dtype, tensor.shape, struct.pack(f"<{len(flat)}{_DTYPES[dtype].code}", *flat))


def _tensor_of(values: Array) -> Tensor:
    if isinstance(values, Tensor):
        if values.dtype not in _DTYPES:
            raise ValueError(f"no type of a tensor is called {values.dtype!r}")
        if len(values.data) != math.prod(values.shape) * _DTYPES[values.dtype].size:
            raise ValueError(f"{len(values.data)} bytes are no {values.dtype} of shape {list(values.shape)}")
        return values
    if _numpy is not None:
        return _tensor_of_array(_numpy.asarray(values))
    try:
        view = memoryview(values)
    except TypeError:
        return _tensor_of_lists(values)
    return _tensor_of_buffer(view)


def _numpy_code(dtype: str) -> str:
    return "?" if dtype == "BOOL" else f"<{_DTYPES[dtype].code}"


def _tensor_of_array(array: Any) -> Tensor:
    if array.dtype.kind == "f" and array.dtype.itemsize <= 8:
        dtype = {2: "F16", 4: "F32", 8: "F64"}[array.dtype.itemsize]
    elif array.dtype.kind == "b":
        dtype = "BOOL"
    elif array.dtype.kind in "iu" and _numpy.can_cast(array.dtype, "i8"):
        dtype = "U8" if array.dtype == "u1" else "I32" if _numpy.can_cast(array.dtype, "i4") else "I64"
    else:
        raise TypeError(f"an array of {array.dtype} cannot be sent")
    shape = tuple(array.shape)
    array = _numpy.ascontiguousarray(array, _numpy_code(dtype))
    return Tensor(dtype, shape, memoryview(array.reshape(-1).view("u1")))


def _tensor_of_buffer(view: memoryview) -> Tensor:
    code = view.format
    if code in ("i", "l", "q"):  # how wide a long is differs by machine
        code = "q" if view.itemsize == 8 else "i"
    for name, dtype in _DTYPES.items():
        if code == dtype.code and name != "BF16":
            count = view.nbytes // dtype.size
            flat = struct.unpack(f"={count}{code}", view.tobytes())
            return Tensor(name, tuple(view.shape or ()), struct.pack(f"<{count}{code}", *flat))
    return _tensor_of_lists(view.tolist())


def _is_row(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)  # a letter's first letter is itself


def _tensor_of_lists(values: Any) -> Tensor:
    shape: list[int] = []
    level = values
    while _is_row(level):
        shape.append(len(level))
        if not level:
            break
        level = level[0]
    flat: list[Any] = []
    _flatten(values, shape, flat)
    dtype = "F64"
    if flat and all(isinstance(number, int) for number in flat):
        dtype = "BOOL" if all(isinstance(number, bool) for number in flat) else "I64"
    try:
        data = struct.pack(f"<{len(flat)}{_DTYPES[dtype].code}", *flat)
    except struct.error as wrong:
        raise TypeError(f"no tensor can be made of this: {wrong}") from None
    return Tensor(dtype, tuple(shape), data)


def _flatten(values: Any, shape: Sequence[int], flat: list[Any]) -> None:
    if not shape:
        if _is_row(values):
            raise ValueError("the rows of a tensor differ in their lengths")
        flat.append(values)
        return
    if not _is_row(values) or len(values) != shape[0]:
        raise ValueError("the rows of a tensor differ in their lengths")
    for row in values:
        _flatten(row, shape[1:], flat)


def _array_of(tensor: Tensor) -> Any:
    """An array of numpy: a view of the tensor's bytes where they can be one."""
    if tensor.dtype == "BF16":
        array = (_numpy.frombuffer(tensor.data, "<u2").astype("<u4") << 16).view("<f4")
    else:
        array = _numpy.frombuffer(tensor.data, _numpy_code(tensor.dtype))
    if not array.flags.aligned:
        array = array.copy()
    return array.reshape(tensor.shape)


def _elements_of(tensor: Tensor) -> tuple[Any, ...]:
    dtype, shape, data = tensor
    count = math.prod(shape)
    if dtype == "BF16":
        wide = bytearray(4 * count)
        wide[2::4], wide[3::4] = bytes(data)[0::2], bytes(data)[1::2]
        return struct.unpack(f"<{count}f", wide)
    return struct.unpack(f"<{count}{_DTYPES[dtype].code}", data)


def _nested(flat: Iterator[Any], shape: Sequence[int]) -> Any:
    if not shape:
        return next(flat)
    if len(shape) == 1:
        return list(itertools.islice(flat, shape[0]))
    return [_nested(flat, shape[1:]) for _ in range(shape[0])]


def _value_of(tensor: Tensor) -> Any:
    """What a caller gets: an array, or without numpy nested lists."""
    if _numpy is not None:
        return _array_of(tensor)
    return _nested(iter(_elements_of(tensor)), tensor.shape)


# --- safetensors --------------------------------------------------------------------------------------


def _parts(tensors: Tensors, metadata: Mapping[str, str] | None) -> list[Bytes]:
    """A file as its header and each tensor's bytes, which are not copied."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    parts: list[Bytes] = [b""]
    end = 0
    # The widest first: so every tensor is aligned.
    entries = [(name, _tensor_of(value)) for name, value in tensors.items()]
    entries.sort(key=lambda entry: -_DTYPES[entry[1].dtype].size)
    for name, (dtype, shape, data) in entries:
        begin, end = end, end + len(data)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        parts.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    parts[0] = struct.pack("<Q", len(text)) + text
    return parts


def pack(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file."""
    return b"".join(_parts(tensors, metadata))


def _open(data: Bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    view = memoryview(data)
    try:
        (size,) = struct.unpack_from("<Q", view)
        if size > len(view) - 8:
            raise ValueError("its header is longer than all of it")
        header = json.loads(bytes(view[8 : 8 + size]))
        metadata = header.pop("__metadata__", {})
        tensors = {}
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            shape = tuple(int(dim) for dim in entry["shape"])
            if not 0 <= begin <= end <= len(view) - 8 - size:
                raise ValueError(f"tensor {name!r} reaches beyond its end")
            tensors[name] = _tensor_of(Tensor(entry["dtype"], shape, view[8 + size + begin : 8 + size + end]))
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise ValueError(f"this is no safetensors file: {wrong}") from None
    return tensors, metadata


def unpack(data: Bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors and the metadata of a safetensors file. Arrays of numpy are views of `data`."""
    tensors, metadata = _open(data)
    return {name: _value_of(tensor) for name, tensor in tensors.items()}, metadata


# --- documents ----------------------------------------------------------------------------------------

_JSON, _SAFETENSORS = "application/json", "application/safetensors"

# In a file's metadata these members of an answer are texts as they stand; all others are JSON.
_TEXTS = frozenset(("model", "incarnation", "context", "op", "worker"))
# These may be "NaN", "Infinity" and "-Infinity", for which JSON has no numbers.
_NUMBERS = frozenset(("loss", "losses", "normalizers"))


def _number(value: Any) -> Any:
    return [_number(item) for item in value] if isinstance(value, list) else float(value)


def _member(name: str, text: str) -> Any:
    if name in _TEXTS:
        return text
    if name in _NUMBERS:
        return _number(json.loads(text))  # it reads a bare NaN too
    return json.loads(text)


def _encode_document(members: Mapping[str, Any], maps: Mapping[str, Tensors | None]) -> list[Bytes]:
    tensors = {f"{name}/{key}": value for name, items in maps.items() for key, value in (items or {}).items()}
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, allow_nan=False)
        for name, value in members.items()
    }
    return _parts(tensors, texts)


def _decode_document(data: Bytes) -> Answer:
    tensors, metadata = _open(data)
    answer: Answer = {name: _member(name, text) for name, text in metadata.items()}
    for path, tensor in tensors.items():
        name, _, key = path.partition("/")
        answer.setdefault(name, {})[key] = _value_of(tensor)
    return answer


def _given(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def etag(answer: Mapping[str, Any]) -> str:
    """The version that an answer made or, if it made none, read: to be given as `if_match`."""
    version = answer["applied_version"] if "applied_version" in answer else answer["version"]
    return f'"{answer["incarnation"]}-{version}"'


# --- problems -----------------------------------------------------------------------------------------


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


def _error_of(status: int, data: bytearray) -> GraddError:
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
_SMALL = 1 << 16


class _Reply(NamedTuple):
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
        connection.sock.recv(1, socket.MSG_PEEK)
        return False
    except BlockingIOError:
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


class _Pool:
    """Kept-alive connections to one address. Each is one thread's while it carries a request."""

    def __init__(self, url: str, timeout: float | None) -> None:
        self._timeout = timeout
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._process = os.getpid()
        scheme, _, rest = url.partition(":")
        self.prefix = ""
        self._path = self._host = ""
        self._port: int | None = None
        if scheme == "unix" and rest:
            self._path = rest
            return
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise ValueError(f"{url!r} is no address: give http://HOST:PORT or unix:PATH")
        self._host, self._port = parts.hostname, parts.port
        self.prefix = parts.path.rstrip("/")

    def _take(self) -> http.client.HTTPConnection:
        with self._lock:
            if self._process != os.getpid():  # after a fork the connections are the parent's
                self._idle, self._process = [], os.getpid()
            while self._idle:
                connection = self._idle.pop()
                if _is_open(connection):
                    return connection
                connection.close()
        if self._path:
            return _UnixConnection(self._path, self._timeout)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    def exchange(self, method: str, target: str, head: Mapping[str, str], body: Sequence[Bytes]) -> _Reply:
        """One request and its answer. What _LOST says where there was none."""
        connection = self._take()
        refused = False
        try:
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
            reply = _Reply(response.status, response.headers, _read(response))
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
_LOST = (OSError, http.client.BadStatusLine, http.client.IncompleteRead)

# --- the client ---------------------------------------------------------------------------------------


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


class Client:
    """The calls of one daemon, at `http://HOST:PORT` or `unix:PATH`. Threads may share it.

    A request whose answer is lost (the connection fails, or is silent for `timeout` seconds), or that is
    answered by 429, 503 or 409 `in-flight`, is sent again up to `retries` times: after the time that
    Retry-After asks for, and otherwise after a random part of `backoff` seconds, doubled each time, at most
    `max_wait`. If a longer wait is asked for, the error is raised at once. Problems are raised as
    GraddError, and ConnectionError when no answer came at all.

    Calls that change something carry an Idempotency-Key, the same at every retry, so that they have one
    effect; an answer to a retry may be marked `"replayed": True`, and has then no tensors. `key` gives a key
    of your own, such that a program which was started anew may repeat its last request. `if_match` makes a
    change only at one version: an ETag, or an answer that tells of it. Otherwise: 412 `stale`.

    Answers are dicts with the members of the service's documents; see its docs/api.md.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        token: str | None = None,
        *,
        timeout: float | None = 60.0,
        retries: int = 6,
        backoff: float = 0.1,
        max_wait: float = 30.0,
        cached_pulls: int = 4,
    ) -> None:
        self._pool = _Pool(url, timeout)
        self._head = {"User-Agent": f"gradd-python/{__version__}"}
        if token:
            self._head["Authorization"] = f"Bearer {token}"
        self._retries = retries
        self._backoff = backoff
        self._max_wait = max_wait
        self._cached_pulls = cached_pulls
        self._pulls: collections.OrderedDict[str, tuple[str, bytes]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Closes the idle connections. The client can still be used, and opens new ones then."""
        self._pool.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- requests -----------------------------------------------------------------------------------

    def _wait(self, attempt: int, asked: float) -> float:
        """Seconds to wait after a failed attempt. The random part keeps a fleet from coming back as one."""
        longest = min(self._max_wait, self._backoff * 2.0 ** (attempt - 1))
        return min(self._max_wait, asked + random.uniform(0, longest))

    def _send(self, method: str, target: str, head: Mapping[str, str], body: Sequence[Bytes] = ()) -> _Reply:
        """A request and its answer, once it has a good one."""
        size = sum(len(part) for part in body)
        head = {**self._head, **head}
        if body:
            head["Content-Length"] = str(size)
        if size <= _SMALL:
            body = [b"".join(body)]
        attempt = 0
        while True:
            attempt += 1
            asked = 0.0
            failure: Exception
            try:
                reply = self._pool.exchange(method, target, head, body)
            except _LOST as lost:
                failure = ConnectionError(f"{method} {target}: no answer in {attempt} attempts: {lost!r}")
                failure.__cause__ = lost
            else:
                if reply.status < 300 or reply.status == 304:
                    return reply
                failure = _error_of(reply.status, reply.data)
                failure.attempts = attempt
                asked = _seconds(reply.head.get("Retry-After"))
                if not _is_passing(failure) or asked > self._max_wait:
                    raise failure
            if attempt > self._retries:
                raise failure
            wait = self._wait(attempt, asked)
            _log.info("%s %s: again in %.3f s: %s", method, target, wait, failure)
            time.sleep(wait)

    def _get(self, path: str) -> Answer:
        answer: Answer = json.loads(self._send("GET", path, {"Accept": _JSON}).data)
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
        data = self._send(method, path, head, body).data
        answer: Answer = _decode_document(data) if encoding == _SAFETENSORS else json.loads(data)
        return answer

    def _change_json(
        self,
        method: str,
        path: str,
        document: Mapping[str, Any] | None = None,
        key: str | None = None,
        if_match: IfMatch = None,
    ) -> Answer:
        body = [] if document is None else [json.dumps(document, allow_nan=False).encode()]
        return self._change(method, path, body, _JSON, key, if_match)

    # --- models -------------------------------------------------------------------------------------

    def create(self, specification: Mapping[str, Any], *, key: str | None = None) -> Answer:
        """POST /models: makes a model, and describes it."""
        return self._change_json("POST", "/models", specification, key)

    def models(self) -> list[Answer]:
        """GET /models: name, incarnation and version of each."""
        models: list[Answer] = self._get("/models")["models"]
        return models

    def describe(self, model: str) -> Answer:
        """GET /models/{m}."""
        return self._get(_path("models", model))

    def patch(
        self,
        model: str,
        changes: Mapping[str, Any],
        *,
        if_match: IfMatch = None,
        key: str | None = None,
    ) -> Answer:
        """PATCH /models/{m}: changes settings by JSON Merge Patch, and describes the model."""
        return self._change_json("PATCH", _path("models", model), changes, key, if_match)

    def delete(self, model: str, *, if_match: IfMatch = None, key: str | None = None) -> Answer:
        """DELETE /models/{m}."""
        return self._change_json("DELETE", _path("models", model), None, key, if_match)

    # --- passes -------------------------------------------------------------------------------------

    def forward(
        self,
        model: str | Mapping[str, Any],
        inputs: Tensors,
        *,
        parameters: Tensors | None = None,
        outputs: Sequence[str] | None = None,
        mode: str | None = None,
        seed: int | None = None,
        first_row: int | None = None,
        retain: bool = False,
        dtype: str | None = None,
    ) -> Answer:
        """POST /forward: `outputs`, and with `retain` a `context` for a backward later. A model is a name,
        or a specification with its parameters. If the answer with a context is lost, the retry makes another
        context, and the first one stays until its time is up."""
        members = _given(
            model=model,
            outputs=outputs,
            mode=mode,
            seed=seed,
            first_row=first_row,
            retain=retain,
            dtype=dtype,
        )
        body = _encode_document(members, {"inputs": inputs, "parameters": parameters})
        head = {"Content-Type": _SAFETENSORS, "Accept": _SAFETENSORS}
        return _decode_document(self._send("POST", "/forward", head, body).data)

    def backward(
        self,
        model: str | Mapping[str, Any] | None = None,
        inputs: Tensors | None = None,
        *,
        context: str | None = None,
        targets: Tensors | None = None,
        upstream: Tensors | None = None,
        parameters: Tensors | None = None,
        returns: Sequence[str] | None = None,
        apply: bool | Mapping[str, float] | None = None,
        accumulate: bool | Mapping[str, float] | None = None,
        retain: bool | None = None,
        mode: str | None = None,
        seed: int | None = None,
        first_row: int | None = None,
        normalizer: float | Sequence[float] | None = None,
        dtype: str | None = None,
        worker: str | None = None,
        max_staleness: int | None = None,
        if_match: IfMatch = None,
        key: str | None = None,
    ) -> Answer:
        """POST /backward: gradients of a loss (`targets`), of `upstream` gradients or of both, at `inputs`
        or at a kept `context`; returned, or with `apply` or `accumulate` put to use.

        A context is used up unless it is retained. So if the answer is lost, its gradients are: the retry
        finds no context (404), or is a replay without tensors. Where they matter, retain the context, and
        delete it once they are there.
        """
        members = _given(
            model=model,
            context=context,
            apply=apply,
            accumulate=accumulate,
            retain=retain,
            mode=mode,
            seed=seed,
            first_row=first_row,
            normalizer=normalizer,
            dtype=dtype,
            worker=worker,
            max_staleness=max_staleness,
        )
        if returns is not None:
            members["return"] = list(returns)
        maps = {"inputs": inputs, "targets": targets, "upstream": upstream, "parameters": parameters}
        body = _encode_document(members, maps)
        if apply or accumulate:
            return self._change("POST", "/backward", body, _SAFETENSORS, key, if_match)
        head = {"Content-Type": _SAFETENSORS, "Accept": _SAFETENSORS}
        return _decode_document(self._send("POST", "/backward", head, body).data)

    def step(
        self,
        model: str,
        *,
        mean: bool = False,
        lr: float | None = None,
        max_staleness: int | None = None,
        if_match: IfMatch = None,
        key: str | None = None,
    ) -> Answer:
        """POST /step: applies what was accumulated, as a sum or as a mean."""
        document = _given(model=model, mean=mean, lr=lr, max_staleness=max_staleness)
        return self._change_json("POST", "/step", document, key, if_match)

    # --- parameters ---------------------------------------------------------------------------------

    def parameters(
        self, model: str, names: Sequence[str] | None = None, *, dtype: str | None = None
    ) -> Answer:
        """GET /models/{m}/parameters: `incarnation`, `version` and `parameters`, all or those of `names`.

        The last few pulls are remembered: while the version stands, the service sends no tensors again.
        What is returned is the caller's own in either case, and may be written to.
        """
        target = _path("models", model, "parameters", names=",".join(names) if names else None, dtype=dtype)
        with self._lock:
            known = self._pulls.get(target)
        head = {"Accept": _SAFETENSORS}
        if known:
            head["If-None-Match"] = known[0]
        status, answered, data = self._send("GET", target, head)
        if known and status == 304:
            data = bytearray(known[1])
        elif answered.get("ETag"):
            known = (answered["ETag"], bytes(data))
        if known:
            self._remember(target, known)
        tensors, metadata = _open(data)
        answer: Answer = {name: _member(name, text) for name, text in metadata.items()}
        answer["parameters"] = {name: _value_of(tensor) for name, tensor in tensors.items()}
        return answer

    def _remember(self, target: str, pull: tuple[str, bytes]) -> None:
        with self._lock:
            self._pulls[target] = pull
            self._pulls.move_to_end(target)
            while len(self._pulls) > self._cached_pulls:
                self._pulls.popitem(last=False)

    def set_parameters(
        self,
        model: str,
        parameters: Tensors,
        *,
        partial: bool = False,
        if_match: IfMatch = None,
        key: str | None = None,
    ) -> Answer:
        """PUT /models/{m}/parameters: sets all, or with `partial` some."""
        target = _path("models", model, "parameters", partial="true" if partial else None)
        return self._change("PUT", target, _parts(parameters, None), _SAFETENSORS, key, if_match)

    def blend(
        self,
        model: str,
        source: str,
        tau: float,
        *,
        if_match: IfMatch = None,
        key: str | None = None,
    ) -> Answer:
        """POST /models/{m}/parameters: θ ← τ θ_source + (1−τ) θ."""
        document = {"from": source, "tau": tau}
        return self._change_json("POST", _path("models", model, "parameters"), document, key, if_match)

    # --- gradients ----------------------------------------------------------------------------------

    def push(
        self,
        model: str,
        gradients: Tensors,
        *,
        incarnation: str,
        version: int,
        samples: int | None = None,
        worker: str | None = None,
        apply: bool | Mapping[str, float] | None = None,
        accumulate: bool | Mapping[str, float] | None = None,
        max_staleness: int | None = None,
        wire: str | None = None,
        if_match: IfMatch = None,
        key: str | None = None,
    ) -> Answer:
        """POST /models/{m}/gradients: applies, or with `accumulate` adds, gradients computed elsewhere, of
        all parameters or some. They are of the `incarnation` and `version` that were pulled. `wire` sends
        them as F16 or BF16."""
        members = _given(
            incarnation=incarnation,
            version=version,
            samples=samples,
            worker=worker,
            apply=apply,
            accumulate=accumulate,
            max_staleness=max_staleness,
        )
        if wire is not None:
            gradients = {name: _narrow(value, wire) for name, value in gradients.items()}
        body = _encode_document(members, {"gradients": gradients})
        return self._change("POST", _path("models", model, "gradients"), body, _SAFETENSORS, key, if_match)

    def gradients(self, model: str, *, dtype: str | None = None) -> Answer:
        """GET /models/{m}/gradients: what was accumulated and not yet applied."""
        target = _path("models", model, "gradients", dtype=dtype)
        return _decode_document(self._send("GET", target, {"Accept": _SAFETENSORS}).data)

    def clear_gradients(self, model: str, *, if_match: IfMatch = None, key: str | None = None) -> Answer:
        """DELETE /models/{m}/gradients: forgets it; `cleared` is how many contributions that were."""
        return self._change_json("DELETE", _path("models", model, "gradients"), None, key, if_match)

    # --- the optimizer's state ----------------------------------------------------------------------

    def optimizer(self, model: str, *, dtype: str | None = None) -> Answer:
        """GET /models/{m}/optimizer: `op`, `steps`, and `state` by SLOT.PARAMETER."""
        target = _path("models", model, "optimizer", dtype=dtype)
        return _decode_document(self._send("GET", target, {"Accept": _SAFETENSORS}).data)

    def set_optimizer(
        self,
        model: str,
        state: Tensors,
        *,
        steps: int,
        op: str | None = None,
        if_match: IfMatch = None,
        key: str | None = None,
    ) -> Answer:
        """PUT /models/{m}/optimizer: sets the whole state."""
        body = _encode_document(_given(steps=steps, op=op), {"state": state})
        return self._change("PUT", _path("models", model, "optimizer"), body, _SAFETENSORS, key, if_match)

    # --- contexts -----------------------------------------------------------------------------------

    def contexts(self) -> list[Answer]:
        """GET /contexts: the kept forward passes."""
        contexts: list[Answer] = self._get("/contexts")["contexts"]
        return contexts

    def context(self, context: str) -> Answer:
        """GET /contexts/{id}."""
        return self._get(_path("contexts", context))

    def delete_context(self, context: str, *, key: str | None = None) -> Answer:
        """DELETE /contexts/{id}: lets one go."""
        return self._change_json("DELETE", _path("contexts", context), None, key)

    # --- the service --------------------------------------------------------------------------------

    def ops(self) -> Answer:
        """GET /ops: the operators, losses and optimizers, with their attributes and formulas."""
        return self._get("/ops")

    def health(self) -> Answer:
        """GET /healthz: whether the process is alive, and its version."""
        return self._get("/healthz")

    def ready(self) -> Answer:
        """GET /readyz: whether it takes requests. A stopping one is waited for like any 503."""
        return self._get("/readyz")


def _path(*segments: str, **query: str | None) -> str:
    path = "".join("/" + urllib.parse.quote(segment, safe="") for segment in segments)
    given = urllib.parse.urlencode(_given(**query), safe=",")
    return f"{path}?{given}" if given else path
