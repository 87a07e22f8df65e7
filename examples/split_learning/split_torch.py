"""The same with PyTorch: the service's part is a layer of a local model, and autograd reaches through it.

At the end the undivided model is trained in PyTorch alone, with the dropout masks made again from the service's
seeds.
"""

from __future__ import annotations

import argparse

import split  # noqa: F401  (puts the client on the path)
import torch
from split import LR, MODEL, P

import common  # isort: skip
import dropout
from gradd.torch import RemoteModule


def stem() -> torch.nn.Module:
    """The layer that stays here."""
    layer = torch.nn.Linear(64, split.HIDDEN)
    layer.load_state_dict({name: torch.from_numpy(value) for name, value in split.first_layer().items()})
    return torch.nn.Sequential(layer, torch.nn.Tanh())


class Replayed(torch.nn.Module):
    """Dropout with a mask from elsewhere."""

    mask: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask


def train(model: torch.nn.Module, data: common.Data, steps: int, before=None, after=None) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.numel()], lr=LR)
    for step, (x, y) in enumerate(split.batches(data, steps)):
        if before:
            before(step)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimizer.step()
        if after:
            after()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running daemon; without it one is started")
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    data, seeds = common.digits(), []
    with common.service(options.url) as url, common.client(url) as api:
        described = common.create(api, split.specification())
        upper = api.parameters(MODEL)["parameters"]
        remote = RemoteModule(api, MODEL, apply=True)
        divided = torch.nn.Sequential(stem(), remote)
        train(divided, data, options.steps, after=lambda: seeds.append(remote.last_forward["seed"]))
        there = {name: torch.from_numpy(value) for name, value in api.parameters(MODEL)["parameters"].items()}

    replayed = Replayed()
    middle, logits = torch.nn.Linear(split.HIDDEN, 32), torch.nn.Linear(32, 10)
    for name, layer in (("middle", middle), ("logits", logits)):
        layer.load_state_dict({part: torch.from_numpy(upper[f"{name}.{part}"]) for part in ("weight", "bias")})
    whole = torch.nn.Sequential(stem(), middle, torch.nn.Tanh(), replayed, logits)
    node = dropout.node_of(described, "dropped")

    def replay(step: int) -> None:
        replayed.mask = torch.from_numpy(dropout.mask(seeds[step], node, split.BATCH, 32, P))

    train(whole, data, options.steps, before=replay)
    pairs = list(zip(divided[0].parameters(), whole[0].parameters()))
    pairs += [(there[f"middle.{name}"], value) for name, value in middle.named_parameters()]
    pairs += [(there[f"logits.{name}"], value) for name, value in logits.named_parameters()]
    difference = max(float((one - other).detach().abs().max()) for one, other in pairs)
    print(f"after {options.steps} steps, divided and undivided weights are {difference:.2g} apart")
    if difference > 1e-4:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
