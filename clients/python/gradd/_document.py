"""Documents of the service, and safetensors, the file format in which their tensors travel."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ._tensor import DTYPES, Array, Bytes, Tensor, Tensors, narrow, tensor_of, value_of

Answer = dict[str, Any]


def _named(argument: str, values: Array, dtype: str | None = None) -> Tensor:
    try:
        return tensor_of(values) if dtype is None else narrow(values, dtype)
    except (TypeError, ValueError) as wrong:
        raise type(wrong)(f"{argument}: {wrong}") from None


def _kind(value: Any) -> str:
    return f"a value of type {type(value).__name__}"


def check_names(argument: str, names: Sequence[str]) -> list[str]:
    """A text is a sequence of its letters, which nobody means."""
    listed = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    if isinstance(names, str) or not all(isinstance(name, str) for name in listed):
        raise TypeError(f"{argument} takes a list of names, not {names!r}")
    return listed


def wired(argument: str, tensors: Tensors, dtype: str | None = None) -> dict[str, Tensor]:
    """Tensors in their wire form, in another floating type if one is named. Errors name `argument`."""
    if not isinstance(tensors, Mapping):
        raise TypeError(
            f"{argument} takes tensors by their names, as {{'name': values}}, not {_kind(tensors)}"
        )
    return {name: _named(f"{argument}[{name!r}]", value, dtype) for name, value in tensors.items()}


def parts(argument: str, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> list[Bytes]:
    """A file as its header and each tensor's bytes, which are not copied. Errors name `argument`."""
    return _file(list(wired(argument, tensors).items()), metadata)


def _file(entries: list[tuple[str, Tensor]], metadata: Mapping[str, str] | None) -> list[Bytes]:
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    parts: list[Bytes] = [b""]
    end = 0
    # The widest first: so every tensor is aligned.
    entries.sort(key=lambda entry: -DTYPES[entry[1].dtype].size)
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
    return b"".join(parts("tensors", tensors, metadata))


def open_file(data: Bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
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
            tensors[name] = tensor_of(Tensor(entry["dtype"], shape, view[8 + size + begin : 8 + size + end]))
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise ValueError(f"this is no safetensors file: {wrong}") from None
    return tensors, metadata


def unpack(data: Bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors and the metadata of a safetensors file. Arrays of numpy are views of `data`."""
    tensors, metadata = open_file(data)
    return {name: value_of(tensor) for name, tensor in tensors.items()}, metadata


# --- documents ----------------------------------------------------------------------------------------

JSON, SAFETENSORS = "application/json", "application/safetensors"

# In a file's metadata these members of an answer are texts as they stand; all others are JSON.
_TEXTS = frozenset(("model", "incarnation", "context", "op", "worker"))
# These may be "NaN", "Infinity" and "-Infinity", for which JSON has no numbers.
_NUMBERS = frozenset(("loss", "losses", "normalizers"))


def _number(value: Any) -> Any:
    return [_number(item) for item in value] if isinstance(value, list) else float(value)


def member(name: str, text: str) -> Any:
    if name in _TEXTS:
        return text
    if name in _NUMBERS:
        return _number(json.loads(text))  # it reads a bare NaN too
    return json.loads(text)


def _plain(value: Any) -> Any:
    """A number or an array of numpy, which json knows nothing of, as Python's own."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{_kind(value)} has no JSON")


def json_text(argument: str, value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as wrong:
        raise type(wrong)(f"{argument}: {wrong}") from None


def encode_document(members: Mapping[str, Any], maps: Mapping[str, Tensors | None]) -> list[Bytes]:
    entries = [
        (f"{argument}/{name}", tensor)
        for argument, tensors in maps.items()
        if tensors is not None
        for name, tensor in wired(argument, tensors).items()
    ]
    texts = {
        name: value if isinstance(value, str) else json_text(name, value) for name, value in members.items()
    }
    return _file(entries, texts)


def decode_document(data: Bytes) -> Answer:
    tensors, metadata = open_file(data)
    answer: Answer = {name: member(name, text) for name, text in metadata.items()}
    for path, tensor in tensors.items():
        name, _, key = path.partition("/")
        answer.setdefault(name, {})[key] = value_of(tensor)
    return answer


def given(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def etag(answer: Mapping[str, Any]) -> str:
    """The version that an answer made or, if it made none, read: to be given as `if_match`."""
    version = answer["applied_version"] if "applied_version" in answer else answer["version"]
    return f'"{answer["incarnation"]}-{version}"'
