"""Shared by the examples in Python: the path to the client, a daemon, and data."""

from __future__ import annotations

import contextlib
import gzip
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "clients" / "python"))

import gradd  # noqa: E402, isort: skip

FASHION_MNIST = "/usr/share/datasets/fashion-mnist"  # where Debian's dataset-fashion-mnist puts it


@contextlib.contextmanager
def service(url: str | None = None) -> Iterator[str]:
    """The address of a running daemon, or of one that is started here ($GRADD, build/gradd) and stopped again."""
    if url is not None:
        yield url
        return
    command = [os.environ.get("GRADD", str(ROOT / "build" / "gradd")), "--listen", "127.0.0.1:0", "--log", "off"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRADD_")}
    daemon = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert daemon.stdout is not None
    try:
        line = daemon.stdout.readline()
        if not line.startswith("listening on "):
            raise RuntimeError(f"{command[0]} did not start")
        yield line.split()[-1]
    finally:
        daemon.terminate()
        daemon.wait()
        daemon.stdout.close()


def client(url: str, **options: float) -> gradd.Client:
    """A client with the token of the environment, if there is one."""
    return gradd.Client(url, os.environ.get("GRADD_TOKEN"), **options)


def create(api: gradd.Client, specification: dict) -> dict:
    """A new model, in the place of one that an earlier run may have left."""
    with contextlib.suppress(gradd.GraddError):
        api.delete(specification["name"])
    return api.create(specification)


class Data(NamedTuple):
    """Samples as rows of pixels with their classes: to train on, and to test with."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    mean: float
    deviation: float

    def scaled(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels as a model reads them."""
        return (pixels.astype(np.float32) - np.float32(self.mean)) / np.float32(self.deviation)


def digits() -> Data:
    """The 1,797 digits of examples/data, in one fixed random order; the last 360 are for the test."""
    tensors, _ = gradd.unpack((ROOT / "examples" / "data" / "digits.safetensors").read_bytes())
    order = np.random.RandomState(0).permutation(len(tensors["y"]))
    x, y = tensors["x"][order], tensors["y"][order]
    return Data(x[:-360], y[:-360], x[-360:], y[-360:], 0, 16)


def fashion_mnist(folder: str = FASHION_MNIST) -> Data:
    """60,000 and 10,000 images of clothes, 28 by 28."""

    def idx(name: str, head: int) -> np.ndarray:
        with gzip.open(os.path.join(folder, name)) as file:
            return np.frombuffer(file.read(), np.uint8, offset=head)

    x, test_x = (idx(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 784) for part in ("train", "t10k"))
    y, test_y = (idx(f"{part}-labels-idx1-ubyte.gz", 8).astype(np.int64) for part in ("train", "t10k"))
    return Data(x, y, test_x, test_y, 255 * 0.286, 255 * 0.353)


def accuracy(api: gradd.Client, model: str, data: Data, output: str) -> float:
    """The share of the test samples that the model gets right."""
    logits = api.forward(model, {"x": data.scaled(data.test_x)})["outputs"][output]
    return float((logits.argmax(1) == data.test_y).mean())


class Perceptron:
    """Linear layers with ReLU between them, in numpy. Weights are named and ordered as gradd pulls them."""

    def __init__(self, parameters: dict[str, np.ndarray]) -> None:
        self.parameters = parameters
        self.layers = [name[: -len(".weight")] for name in parameters if name.endswith(".weight")]

    def forward(self, x: np.ndarray) -> list[np.ndarray]:
        """What each layer reads, and at the end what the last one gives."""
        values = [x]
        for layer in self.layers:
            x = values[-1] @ self.parameters[f"{layer}.weight"].T + self.parameters[f"{layer}.bias"]
            values.append(x if layer == self.layers[-1] else np.maximum(x, 0))
        return values

    def backward(self, values: list[np.ndarray], d_y: np.ndarray) -> dict[str, np.ndarray]:
        """Gradients of the parameters from the gradient of the last layer's output."""
        gradients = {}
        for i in reversed(range(len(self.layers))):
            layer, x = self.layers[i], values[i]
            gradients[f"{layer}.weight"] = d_y.T @ x
            gradients[f"{layer}.bias"] = d_y.sum(0)
            d_y = d_y @ self.parameters[f"{layer}.weight"] * (x > 0)
        return gradients


def cross_entropy(logits: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean loss, and its gradient."""
    rows = np.arange(len(y))
    shifted = logits - logits.max(1, keepdims=True)
    p = np.exp(shifted)
    total = p.sum(1, keepdims=True)
    loss = float((np.log(total[:, 0]) - shifted[rows, y]).mean())
    p /= total
    p[rows, y] -= 1
    return loss, p / np.float32(len(y))
