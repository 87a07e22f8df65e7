"""A model in two places: the first layer in numpy with the client, the rest with the service.

The images and their labels stay with the client. It sends the output of its layer, and the service keeps the
forward pass as a context. The client computes the loss of the logits that it gets, and sends their gradient. It
gets the gradient of its layer's output, and the service updates its own layers. With --labels service, the client
sends the labels instead, and the service computes the loss.

At the end the same model is trained in one piece, in numpy, with the same batches and the same dropout masks, made
again from the seeds in the service's answers. The weights must agree. (The layers are smooth, because at the kink
of a ReLU a last bit can decide whether a gradient passes.)
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import common  # noqa: E402
import dropout  # noqa: E402
from common import gradd  # noqa: E402

MODEL, HIDDEN, P, LR, BATCH = "upper-layers", 48, 0.25, 0.2, 64


def specification() -> dict:
    """The service's part."""
    return {
        "name": MODEL,
        "seed": 11,
        "inputs": {"h": {"shape": [HIDDEN]}},
        "layers": [
            {"op": "linear", "out_features": 32, "name": "middle"},
            {"op": "tanh", "name": "active"},
            {"op": "dropout", "p": P, "name": "dropped"},
            {"op": "linear", "out_features": 10, "name": "logits"},
        ],
        "loss": {"op": "cross_entropy"},
        "optimizer": {"op": "sgd", "lr": LR},
    }


def first_layer() -> dict[str, np.ndarray]:
    """The client's part, as PyTorch would draw it."""
    random, bound = np.random.RandomState(5), 1 / np.sqrt(64)
    shapes = {"weight": (HIDDEN, 64), "bias": (HIDDEN,)}
    return {name: random.uniform(-bound, bound, shape).astype(np.float32) for name, shape in shapes.items()}


def batches(data: common.Data, steps: int):
    for step in range(steps):
        epoch, place = divmod(step, len(data.y) // BATCH)
        rows = np.random.RandomState(epoch).permutation(len(data.y))[place * BATCH : (place + 1) * BATCH]
        yield data.scaled(data.x[rows]), data.y[rows]


def descend(weights: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
    for name, gradient in gradients.items():
        weights[name] -= np.float32(LR) * gradient


# --- in two places ------------------------------------------------------------------------------------


def train(api: gradd.Client, data: common.Data, steps: int, labels: str) -> tuple[dict, list[int]]:
    """The client's weights, and the seeds of the service's dropout."""
    own, seeds = first_layer(), []
    for x, y in batches(data, steps):
        h = np.tanh(x @ own["weight"].T + own["bias"])
        there = api.forward(MODEL, {"h": h}, retain=True)
        seeds.append(there["seed"])
        if labels == "client":
            _, d_logits = common.cross_entropy(there["outputs"]["logits"], y)
            asked = {"upstream": {"logits": d_logits}}
        else:
            asked = {"targets": {"y": y}}
        back = api.backward(context=there["context"], returns=["inputs"], apply=True, **asked)
        d_h = back["input_gradients"]["h"] * (1 - h * h)
        descend(own, {"weight": d_h.T @ x, "bias": d_h.sum(0)})
    return own, seeds


def test(api: gradd.Client, data: common.Data, own: dict[str, np.ndarray]) -> float:
    h = np.tanh(data.scaled(data.test_x) @ own["weight"].T + own["bias"])
    logits = api.forward(MODEL, {"h": h})["outputs"]["logits"]
    return float((logits.argmax(1) == data.test_y).mean())


# --- in one piece -------------------------------------------------------------------------------------


def undivided(upper: dict[str, np.ndarray], data: common.Data, seeds: list[int], node: int) -> dict[str, np.ndarray]:
    weights = {f"first.{name}": value for name, value in first_layer().items()}
    weights |= {name: value.copy() for name, value in upper.items()}
    for seed, (x, y) in zip(seeds, batches(data, len(seeds))):
        h = np.tanh(x @ weights["first.weight"].T + weights["first.bias"])
        middle = np.tanh(h @ weights["middle.weight"].T + weights["middle.bias"])
        mask = dropout.mask(seed, node, len(y), middle.shape[1], P)
        dropped = middle * mask
        _, d_logits = common.cross_entropy(dropped @ weights["logits.weight"].T + weights["logits.bias"], y)
        d_middle = d_logits @ weights["logits.weight"] * mask * (1 - middle * middle)
        d_h = d_middle @ weights["middle.weight"] * (1 - h * h)
        gradients = {}
        for name, d_y, read in (("logits", d_logits, dropped), ("middle", d_middle, h), ("first", d_h, x)):
            gradients |= {f"{name}.weight": d_y.T @ read, f"{name}.bias": d_y.sum(0)}
        descend(weights, gradients)
    return weights


def apart(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running daemon; without it one is started")
    parser.add_argument("--labels", choices=("client", "service"), default="client", help="who knows them")
    parser.add_argument("--steps", type=int, default=100, help="after which the weights are compared")
    parser.add_argument("--more", type=int, default=900, help="further steps, before the test")
    parser.add_argument("--reach", type=float, default=0.95, help="the accuracy that must be reached")
    options = parser.parse_args()
    data = common.digits()
    with common.service(options.url) as url, common.client(url) as api:
        described = common.create(api, specification())
        start = api.parameters(MODEL)["parameters"]
        own, seeds = train(api, data, options.steps, options.labels)
        split = {**{f"first.{name}": value for name, value in own.items()}, **api.parameters(MODEL)["parameters"]}
        whole = undivided(start, data, seeds, dropout.node_of(described, "dropped"))
        difference = apart(whole, split)
        print(f"after {options.steps} steps, divided and undivided weights are {difference:.2g} apart")

        common.create(api, specification())
        own, _ = train(api, data, options.steps + options.more, options.labels)
        reached = test(api, data, own)
        print(f"after {options.steps + options.more} steps: accuracy {reached:.4f}")
        left = len(api.contexts())
        print(f"contexts that are left: {left}")
    if difference > 1e-4 or reached < options.reach or left:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
