"""Requests as they go over the wire, and the two encodings of a document."""
import functools
import http.client
import json
import struct

import numpy

TYPES = {"safetensors": "application/safetensors", "json": "application/json",
         "raw": "application/octet-stream"}
DTYPES = {"float32": "F32", "int64": "I64"}


def request(method, path, body=b"", encoding="safetensors"):
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {TYPES[encoding]}\r\n"
    if body or method != "GET":
        head += f"Content-Type: {TYPES[encoding]}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def safetensors(members, tensors):
    header, data = {}, []
    if members:
        header["__metadata__"] = {k: v if isinstance(v, str) else json.dumps(v) for k, v in members.items()}
    begin = 0
    for name, tensor in tensors.items():
        end = begin + tensor.nbytes
        header[name] = {"dtype": DTYPES[tensor.dtype.name], "shape": tensor.shape, "data_offsets": [begin, end]}
        data.append(tensor.tobytes())
        begin = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data)


def array_text(tensor):
    """Numbers as the shortest decimals that read back as the same float32."""
    if tensor.ndim > 1:
        return "[" + ",".join(map(array_text, tensor)) + "]"
    return "[" + ",".join(tensor.astype(str)) + "]"


def json_document(members, tensors):
    """`tensors` are named as in a safetensors document: member/name."""
    parts = [f"{json.dumps(name)}:{json.dumps(value)}" for name, value in members.items()]
    groups = {}
    for path, tensor in tensors.items():
        member, name = path.split("/")
        groups.setdefault(member, []).append(f"{json.dumps(name)}:{array_text(tensor)}")
    parts += [f"{json.dumps(member)}:{{{','.join(texts)}}}" for member, texts in groups.items()]
    return ("{" + ",".join(parts) + "}").encode()


def document(encoding, members, tensors):
    return safetensors(members, tensors) if encoding == "safetensors" else json_document(members, tensors)


def call(port, method, path, body=b"", encoding="json", expected=(200, 201)):
    """One call, answered with its body."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(method, path, body, {"Content-Type": TYPES[encoding], "Accept": TYPES[encoding]})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if expected and answer.status not in expected:
        raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
    return text


def batch(rows, widths):
    generator = numpy.random.default_rng(1)
    x = generator.random((rows, widths[0]), dtype=numpy.float32)
    return x, numpy.arange(rows, dtype=numpy.int64) % widths[-1]


@functools.lru_cache(maxsize=1)
def weights(layers):
    """By the names that gradd gives them; as He et al. draw them, so that nothing fades in a deep graph."""
    generator = numpy.random.default_rng(2)
    tensors = {}
    widths = [int(width) for width in layers.split("-")]
    for i, (before, after) in enumerate(zip(widths, widths[1:])):
        bound = (6 / before) ** 0.5
        tensors[f"{2 * i}.weight"] = generator.uniform(-bound, bound, (after, before)).astype(numpy.float32)
        tensors[f"{2 * i}.bias"] = numpy.zeros(after, numpy.float32)
    return tensors
