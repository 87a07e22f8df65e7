"""An actor and a critic learn to balance a pole: one model of two heads, trained through the service.

The loss of the policy is the cross entropy of the actions taken, weighted by their advantages. An advantage may be
negative: an action that turned out worse than expected becomes less likely. The loss of the value is its squared
distance from the return. Values beyond the steps taken come from a second model, the target, which follows the
first slowly by blends.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import common  # noqa: E402
from cartpole import LONGEST, TILT, TRACK, Carts  # noqa: E402
from common import gradd  # noqa: E402

CARTS, STEPS = 16, 32  # at once, and between two updates
DISCOUNT, TRACE, TAU = 0.99, 0.95, 0.2
SCALE = np.array([TRACK, 2.0, TILT, 2.0])  # of a state's numbers


def specification(name: str) -> dict:
    return {
        "name": name,
        "seed": 3,
        "inputs": {"state": {"shape": [4]}},
        "layers": [
            {"op": "linear", "out_features": 64, "inputs": ["state"]},
            {"op": "tanh", "name": "actor"},
            {"op": "linear", "out_features": 2, "name": "policy"},
            {"op": "linear", "out_features": 64, "inputs": ["state"]},
            {"op": "tanh", "name": "critic"},
            {"op": "linear", "out_features": 1, "name": "value"},
        ],
        "outputs": ["policy", "value"],
        "loss": [
            {"op": "cross_entropy", "input": "policy", "target": "action", "sample_weight": "advantage"},
            {"op": "cross_entropy", "input": "policy", "target": "indifference", "scale": 0.01},
            {"op": "mse", "input": "value", "target": "return", "scale": 0.5},
        ],
        "optimizer": {"op": "adam", "lr": 0.005, "clip_grad_norm": 0.5},
    }


class Agent:
    def __init__(self, api: gradd.Client, seed: int) -> None:
        self.api = api
        self.random = np.random.RandomState(seed)
        for name in ("agent", "target"):
            common.create(api, specification(name))

    def policy(self, states: np.ndarray) -> np.ndarray:
        """The probability of a push to the right."""
        logits = self.api.forward("agent", {"state": states / SCALE}, outputs=["policy"])["outputs"]["policy"]
        return 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))

    def values(self, states: np.ndarray) -> np.ndarray:
        flat = states.reshape(-1, 4) / SCALE
        values = self.api.forward("target", {"state": flat}, outputs=["value"])["outputs"]["value"]
        return values.reshape(states.shape[:-1])

    def act(self, states: np.ndarray) -> np.ndarray:
        return self.random.uniform(size=len(states)) < self.policy(states)

    def learn(self, states: np.ndarray, actions: np.ndarray, after: np.ndarray, fell: np.ndarray, over: np.ndarray):
        """One update from [steps, carts] of experience. A fall costs 1; nothing else costs."""
        value, later = self.values(states), self.values(after)
        surprise = np.where(fell, -1.0, DISCOUNT * later) - value
        advantage = np.zeros_like(surprise)
        trace = np.zeros(CARTS)
        for t in reversed(range(len(states))):  # generalized advantages: Schulman and others, 2016
            trace = surprise[t] + DISCOUNT * TRACE * np.where(over[t], 0, trace)
            advantage[t] = trace
        weight = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        count = advantage.size
        self.api.backward(
            "agent",
            {"state": states.reshape(count, 4) / SCALE},
            targets={
                "action": actions.reshape(count).astype(np.int64),
                "advantage": weight.reshape(count),
                "indifference": np.full((count, 2), 0.5),
                "return": (advantage + value).reshape(count, 1),
            },
            apply=True,
        )
        self.api.blend("target", "agent", TAU)


def train(api: gradd.Client, seed: int, reach: float, updates: int) -> tuple[int, float]:
    """Plays until the last 100 episodes have lasted long enough. Returns the updates and the mean length."""
    agent, carts = Agent(api, seed), Carts(CARTS, seed)
    lengths: collections.deque[int] = collections.deque(maxlen=100)
    for update in range(1, updates + 1):
        steps = []
        for _ in range(STEPS):
            states, ages = carts.state, carts.age + 1
            actions = agent.act(states)
            after, fell, over = carts.step(actions)
            lengths.extend(ages[over])
            steps.append((states, actions, after, fell, over))
        agent.learn(*map(np.stack, zip(*steps)))
        mean = float(np.mean(lengths)) if lengths else 0.0
        if update % 20 == 0:
            print(f"after {update} updates the last {len(lengths)} episodes lasted {mean:.1f} steps", flush=True)
        if len(lengths) == 100 and mean >= reach:
            return update, mean
    return updates, mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running daemon; without it one is started")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--updates", type=int, default=1000, help="at the most")
    parser.add_argument("--reach", type=float, default=195, help=f"mean steps of 100 episodes; {LONGEST} is all")
    options = parser.parse_args()
    with common.service(options.url) as url, common.client(url) as api:
        updates, mean = train(api, options.seed, options.reach, options.updates)
        api.delete("agent")
        api.delete("target")
    print(f"{updates} updates: the last 100 episodes lasted {mean:.1f} steps of {LONGEST}")
    if mean < options.reach:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
