"""Tensors as they travel, and as Python holds them."""

from __future__ import annotations

import itertools
import math
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Union

numpy: Any
try:
    import numpy
except ImportError:
    numpy = None


class _Dtype(NamedTuple):
    size: int  # bytes of an element
    code: str  # of struct; bfloat16 has none, and travels as the upper half of a float
    is_float: bool


DTYPES = {
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
    _, shape, data = narrow(values, "F32")
    count = math.prod(shape)
    if numpy is not None:
        bits = numpy.frombuffer(data, "<u4")
        rounded = (bits + (0x7FFF + (bits >> 16 & 1))) >> 16
        rounded = numpy.where(bits & 0x7FFFFFFF > 0x7F800000, bits >> 16 | 0x40, rounded)  # NaN stays NaN
        return Tensor("BF16", shape, rounded.astype("<u2").tobytes())
    words = struct.unpack(f"<{count}I", data)
    halves = [
        bits >> 16 | 0x40 if bits & 0x7FFFFFFF > 0x7F800000 else (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        for bits in words
    ]
    return Tensor("BF16", shape, struct.pack(f"<{count}H", *halves))


def narrow(values: Array, dtype: str) -> Tensor:
    """Values in another floating type."""
    if dtype == "BF16":
        return bfloat16(values)
    if dtype not in DTYPES or not DTYPES[dtype].is_float:
        raise ValueError(f"no floating type is called {dtype!r}")
    tensor = tensor_of(values)
    if tensor.dtype == dtype:
        return tensor
    if numpy is not None:
        with numpy.errstate(over="ignore"):  # what becomes infinite, the service refuses by name
            data = _array_of(tensor).astype(_numpy_code(dtype)).tobytes()
        return Tensor(dtype, tensor.shape, data)
    flat = _elements_of(tensor)
    return Tensor(dtype, tensor.shape, struct.pack(f"<{len(flat)}{DTYPES[dtype].code}", *flat))


def tensor_of(values: Array) -> Tensor:
    """A tensor in its wire form. TypeError or ValueError where none can be made."""
    if isinstance(values, Tensor):
        if values.dtype not in DTYPES:
            raise ValueError(f"no type of a tensor is called {values.dtype!r}")
        if len(values.data) != math.prod(values.shape) * DTYPES[values.dtype].size:
            raise ValueError(f"{len(values.data)} bytes are no {values.dtype} of shape {list(values.shape)}")
        return values
    if numpy is not None:
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(values, torch.Tensor):
            return tensor_of_torch(values, torch)
        return _tensor_of_array(numpy.asarray(values))
    try:
        view = memoryview(values)
    except TypeError:
        return _tensor_of_lists(values)
    return _tensor_of_buffer(view)


def tensor_of_torch(tensor: Any, torch: Any) -> Tensor:
    """A tensor of PyTorch, which bfloat16 has no array of numpy for."""
    if tensor.requires_grad:
        raise TypeError(
            "this tensor requires grad, and its gradient would end here: "
            "send tensor.detach(), or make the model a layer with gradd.torch.RemoteModule"
        )
    tensor = tensor.cpu().contiguous()
    if tensor.dtype != torch.bfloat16:
        return _tensor_of_array(tensor.numpy())
    halves = tensor.view(torch.int16).numpy()
    return Tensor("BF16", tuple(tensor.shape), halves.astype("<i2", copy=False).tobytes())


def _numpy_code(dtype: str) -> str:
    return "?" if dtype == "BOOL" else f"<{DTYPES[dtype].code}"


def _tensor_of_array(array: Any) -> Tensor:
    if array.dtype.kind == "f" and array.dtype.itemsize <= 8:
        dtype = {2: "F16", 4: "F32", 8: "F64"}[array.dtype.itemsize]
    elif array.dtype.kind == "b":
        dtype = "BOOL"
    elif array.dtype.kind in "iu" and numpy.can_cast(array.dtype, "i8"):
        dtype = "U8" if array.dtype == "u1" else "I32" if numpy.can_cast(array.dtype, "i4") else "I64"
    else:
        raise TypeError(f"an array of {array.dtype} cannot be sent")
    shape = tuple(array.shape)
    array = numpy.ascontiguousarray(array, _numpy_code(dtype))
    return Tensor(dtype, shape, memoryview(array.reshape(-1).view("u1")))


def _tensor_of_buffer(view: memoryview) -> Tensor:
    code = view.format
    if code in ("i", "l", "q"):  # how wide a long is differs by machine
        code = "q" if view.itemsize == 8 else "i"
    for name, dtype in DTYPES.items():
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
        data = struct.pack(f"<{len(flat)}{DTYPES[dtype].code}", *flat)
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
        array = (numpy.frombuffer(tensor.data, "<u2").astype("<u4") << 16).view("<f4")
    else:
        array = numpy.frombuffer(tensor.data, _numpy_code(tensor.dtype))
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
    return struct.unpack(f"<{count}{DTYPES[dtype].code}", data)


def _nested(flat: Iterator[Any], shape: Sequence[int]) -> Any:
    if not shape:
        return next(flat)
    if len(shape) == 1:
        return list(itertools.islice(flat, shape[0]))
    return [_nested(flat, shape[1:]) for _ in range(shape[0])]


def value_of(tensor: Tensor) -> Any:
    """What a caller gets: an array, or without numpy nested lists."""
    if numpy is not None:
        return _array_of(tensor)
    return _nested(iter(_elements_of(tensor)), tensor.shape)
