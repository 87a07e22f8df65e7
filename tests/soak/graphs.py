"""Small models drawn at random, with batches that fit them, and both encodings of a document."""

from __future__ import annotations

import base64
import json
import random
import struct
from typing import Any, NamedTuple

import gradd

JSON, FILE = "application/json", "application/safetensors"

ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh", "softplus", "log_softmax")
OPTIMIZERS = (
    {"op": "sgd", "lr": 0.01},
    {"op": "sgd", "lr": 0.01, "momentum": 0.9},
    {"op": "adam", "lr": 0.001},
    {"op": "adamw", "lr": 0.001},
    {"op": "rmsprop", "lr": 0.001},
    {"op": "adagrad", "lr": 0.01},
)
FORMATS = {"F32": "f", "F64": "d", "I64": "q"}


class Graph(NamedTuple):
    """`inputs` and `targets`: of each name its type, the shape of a sample, and the numbers that it may be."""

    specification: dict[str, Any]
    inputs: dict[str, tuple[str, tuple[int, ...], int]]
    targets: dict[str, tuple[str, tuple[int, ...], int]]


def draw(chance: random.Random, optimizer: bool = True) -> Graph:
    """`optimizer`: never without one."""
    dtype = chance.choice(("F32", "F32", "F32", "F64"))
    width, out = chance.randint(1, 48), chance.randint(1, 12)
    kind = chance.choice(("line", "ids", "two"))
    inputs: dict[str, tuple[str, tuple[int, ...], int]] = {}
    if kind == "ids":
        inputs["x"] = ("I64", (width,), 20)
        layers = [{"op": "embedding", "num_embeddings": 20, "embedding_dim": 4}, {"op": "flatten"}]
    elif kind == "two":
        inputs["a"] = inputs["b"] = (dtype, (width,), 0)
        layers = [{"op": chance.choice(("add", "sub", "mul", "concat")), "inputs": ["a", "b"]}]
    else:
        inputs["x"] = (dtype, (width,), 0)
        layers = []
    for _ in range(chance.randint(0, 3)):
        layers.append({"op": "linear", "out_features": chance.choice((3, 16, 64, 160))})
        layers.append({"op": chance.choice(ACTIVATIONS)})
        if chance.random() < 0.3:
            layers.append({"op": "dropout", "p": 0.2})
    layers.append({"op": "linear", "out_features": out, "name": "out"})
    loss = chance.choice(("mse", "l1", "huber", "cross_entropy", "bce_with_logits"))
    target = ("I64", (), out) if loss == "cross_entropy" else (dtype, (out,), 0)
    specification = {
        "seed": chance.randrange(1 << 53),
        "dtype": dtype,
        "inputs": {name: {"shape": list(shape), "dtype": kind} for name, (kind, shape, _) in inputs.items()},
        "layers": layers,
        "loss": {"op": loss},
    }
    if optimizer or chance.random() < 0.9:
        specification["optimizer"] = dict(chance.choice(OPTIMIZERS), clip_grad_norm=1.0)
    return Graph(specification, inputs, {"y": target})


def tensor(chance: random.Random, dtype: str, shape: tuple[int, ...], below: int) -> gradd.Tensor:
    count = 1
    for dim in shape:
        count *= dim
    if below:
        numbers: list[Any] = [chance.randrange(below) for _ in range(count)]
    else:
        numbers = [chance.random() for _ in range(count)]
    return gradd.Tensor(dtype, shape, struct.pack(f"<{count}{FORMATS[dtype]}", *numbers))


def batch(chance: random.Random, graph: Graph, rows: int, targets: bool = True) -> dict[str, gradd.Tensor]:
    """Tensors by the paths of a document."""
    tensors = {}
    for place, wanted in (("inputs", graph.inputs), ("targets", graph.targets if targets else {})):
        for name, (dtype, shape, below) in wanted.items():
            tensors[f"{place}/{name}"] = tensor(chance, dtype, (rows, *shape), below)
    return tensors


def _nested(numbers: list[Any], shape: tuple[int, ...]) -> Any:
    if not shape:
        return numbers[0]
    step = len(numbers) // shape[0] if shape[0] else 0
    return [_nested(numbers[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def encode(
    chance: random.Random, members: dict[str, Any], tensors: dict[str, gradd.Tensor], json_only: bool = False
) -> tuple[str, bytes]:
    """A document, in one of the two encodings: its type and its bytes."""
    if tensors and not json_only and chance.random() < 0.5:
        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in members.items()}
        return FILE, gradd.pack(tensors, texts)
    document = dict(members)
    digits = chance.random() < 0.5
    for path, (dtype, shape, data) in tensors.items():
        place, _, name = path.partition("/")
        if digits and dtype in FORMATS:
            value: Any = _nested([number for number, in struct.iter_unpack(f"<{FORMATS[dtype]}", data)], shape)
        else:
            value = {"dtype": dtype, "shape": list(shape), "base64": base64.b64encode(data).decode()}
        document.setdefault(place, {})[name] = value
    return JSON, json.dumps(document).encode()


def decode(kind: str, body: bytes) -> dict[str, Any]:
    """An answer's members, without its tensors."""
    if kind != FILE:
        return json.loads(body)
    _, metadata = gradd.unpack(body)
    texts = ("model", "incarnation", "context", "op", "worker")
    return {k: v if k in texts else json.loads(v) for k, v in metadata.items()}
