"""Three clients that each know some of the digits learn all ten together, and no image leaves its client.

In each round a client pulls the parameters, trains them on its own images in numpy, and pushes the pulled parameters
minus the trained ones. The model's optimizer is sgd with the learning rate 1, so it subtracts the pushed difference
unchanged. Its aggregation waits for all clients and applies their mean, weighted by samples: federated averaging
(McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", 2017).
"""

from __future__ import annotations

import argparse
import concurrent.futures
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import common  # noqa: E402
from common import gradd  # noqa: E402

MODEL = "federated"
CLASSES = ((0, 1, 2, 3), (4, 5, 6), (7, 8, 9))  # of each client
BATCH, LR = 16, 0.1


def specification() -> dict:
    return {
        "name": MODEL,
        "seed": 7,
        "inputs": {"x": {"shape": [64]}},
        "layers": [
            {"op": "linear", "out_features": 64},
            {"op": "relu"},
            {"op": "linear", "out_features": 10, "name": "logits"},
        ],
        "loss": {"op": "cross_entropy"},
        "optimizer": {"op": "sgd", "lr": 1},
        "aggregation": {"mode": "sync", "workers": len(CLASSES), "timeout_ms": 20000, "reduce": "mean"},
    }


def train(parameters: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """One pass over a client's images."""
    network = common.Perceptron({name: value.copy() for name, value in parameters.items()})
    order = np.random.RandomState(seed).permutation(len(y))
    for begin in range(0, len(y), BATCH):
        rows = order[begin : begin + BATCH]
        values = network.forward(x[rows])
        _, d_logits = common.cross_entropy(values[-1], y[rows])
        for name, gradient in network.backward(values, d_logits).items():
            network.parameters[name] -= np.float32(LR) * gradient
    return network.parameters


def accuracy(parameters: dict[str, np.ndarray], data: common.Data) -> float:
    logits = common.Perceptron(parameters).forward(data.scaled(data.test_x))[-1]
    return float((logits.argmax(1) == data.test_y).mean())


def take_part(api: gradd.Client, rank: int, x: np.ndarray, y: np.ndarray, rounds: int) -> None:
    """One client, from the first round to the last."""
    for i in range(rounds):
        pulled = api.parameters(MODEL)
        before = pulled["parameters"]
        after = train(before, x, y, seed=i)
        api.push(
            MODEL,
            {name: before[name] - after[name] for name in before},
            incarnation=pulled["incarnation"],
            version=pulled["version"],
            samples=len(y),
            worker=f"client-{rank}",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running daemon; without it one is started")
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("--reach", type=float, default=0.95, help="the accuracy that must be reached")
    parser.add_argument("--save", help="file to save the parameters in")
    options = parser.parse_args()
    data = common.digits()
    own = [np.flatnonzero(np.isin(data.y, classes)) for classes in CLASSES]
    shards = [(data.scaled(data.x[rows]), data.y[rows]) for rows in own]

    with common.service(options.url) as url, common.client(url) as api:
        common.create(api, specification())
        start = api.parameters(MODEL)["parameters"]
        for rank, (x, y) in enumerate(shards):
            alone = start
            for i in range(options.rounds):
                alone = train(alone, x, y, seed=i)
            print(f"client {rank} alone: {len(y)} images of {CLASSES[rank]}, accuracy {accuracy(alone, data):.4f}")

        with concurrent.futures.ThreadPoolExecutor(len(shards)) as clients:
            parts = [clients.submit(take_part, api, i, *shard, options.rounds) for i, shard in enumerate(shards)]
            for part in concurrent.futures.as_completed(parts):
                part.result()
        pulled = api.parameters(MODEL)
        reached = accuracy(pulled["parameters"], data)
        print(f"together, after {pulled['version']} rounds: accuracy {reached:.4f}")
        if options.save:
            pathlib.Path(options.save).write_bytes(gradd.pack(pulled["parameters"]))
    if pulled["version"] != options.rounds or reached < options.reach:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
