"""A pole on a cart: many carts at once, each pushed left or right; the pole must stay up, the cart on its track.

The equations and numbers are those of Barto, Sutton and Anderson, "Neuronlike Adaptive Elements That Can Solve
Difficult Learning Control Problems" (1983), without friction, integrated by Euler's method.
"""

from __future__ import annotations

import numpy as np

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, TICK = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
TRACK, TILT = 2.4, 12 * np.pi / 180  # where an episode ends
LONGEST = 200  # steps of an episode


class Carts:
    def __init__(self, count: int, seed: int) -> None:
        self.random = np.random.RandomState(seed)
        self.state = self._begin(count)  # position, speed, angle, angular speed
        self.age = np.zeros(count, int)

    def _begin(self, count: int) -> np.ndarray:
        return self.random.uniform(-0.05, 0.05, (count, 4))

    def step(self, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pushes each cart. Returns the states that came of it, which poles fell, and which episodes are over
        (it fell, or was up for long enough); those begin anew."""
        x, v, angle, spin = self.state.T
        force = np.where(right, FORCE, -FORCE)
        sine, cosine = np.sin(angle), np.cos(angle)
        pull = (force + POLE * HALF_LENGTH * spin**2 * sine) / (CART + POLE)
        turn = (GRAVITY * sine - cosine * pull) / (HALF_LENGTH * (4 / 3 - POLE * cosine**2 / (CART + POLE)))
        push = pull - POLE * HALF_LENGTH * turn * cosine / (CART + POLE)
        after = np.stack([x + TICK * v, v + TICK * push, angle + TICK * spin, spin + TICK * turn], 1)
        fell = (np.abs(after[:, 0]) > TRACK) | (np.abs(after[:, 2]) > TILT)
        self.age += 1
        over = fell | (self.age >= LONGEST)
        self.state = after.copy()
        self.state[over] = self._begin(int(over.sum()))
        self.age[over] = 0
        return after, fell, over
