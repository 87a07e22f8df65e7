"""One worker of the fleet: a process of its own, which may be killed, paused or made to repeat itself.

Batch number i is the same for every worker: worker k of n takes the k-th part of the i-th joined batch. The worker
writes a line before it sends an update, and another when it has the answer. After a kill -9, train.py finds the
last request in this log, and sends it again under the same key.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import common  # noqa: E402
from common import gradd  # noqa: E402

TIMEOUT = 30.0  # seconds that a request may take


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", choices=("fashion-mnist", "digits"), default="fashion-mnist")
    parser.add_argument("--folder", default=common.FASHION_MNIST, help="where the files of Fashion-MNIST are")
    parser.add_argument("--rank", type=int, default=0, help="which of the workers this is")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64, help="samples an update of one worker")
    parser.add_argument("--updates", type=int, default=100, help="in rounds: up to this version")
    parser.add_argument("--compute", choices=("server", "worker"), default="server", help="who computes gradients")
    parser.add_argument("--rounds", action="store_true", help="the model aggregates in rounds")
    parser.add_argument("--twice", action="store_true", help="send every request twice")
    parser.add_argument("--log", help="file to write a line of JSON to before and after each update")
    return parser


class Worker:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.name = f"worker-{options.rank}"
        self.data = common.digits() if options.data == "digits" else common.fashion_mnist(options.folder)
        self.api = common.client(options.url, timeout=TIMEOUT)
        self.log = os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if options.log else None
        self.order: tuple[int, np.ndarray] = (-1, np.empty(0))

    def note(self, **line: object) -> None:
        """One write a line: a kill leaves no half of one."""
        if self.log is not None:
            os.write(self.log, (json.dumps({"time": time.time(), **line}) + "\n").encode())

    def batch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        options = self.options
        joined = options.batch * options.workers
        epoch, place = divmod(number, len(self.data.y) // joined)
        if self.order[0] != epoch:
            self.order = (epoch, np.random.RandomState(epoch).permutation(len(self.data.y)))
        begin = place * joined + options.rank * options.batch
        rows = self.order[1][begin : begin + options.batch]
        return self.data.scaled(self.data.x[rows]), self.data.y[rows]

    # --- one update ---------------------------------------------------------------------------------

    def computed_by_server(self, number: int, key: str, version: str | None) -> dict:
        x, y = self.batch(number)
        return self.api.backward(
            self.options.model, {"x": x}, targets={"y": y}, apply=True, worker=self.name, if_match=version, key=key
        )

    def computed_here(self, number: int, key: str, version: str | None) -> dict:
        x, y = self.batch(number)
        pulled = self.api.parameters(self.options.model)
        network = common.Perceptron(pulled["parameters"])
        values = network.forward(x)
        loss, d_logits = common.cross_entropy(values[-1], y)
        gradients = network.backward(values, d_logits)

        def push() -> dict:
            return self.api.push(
                self.options.model,
                gradients,
                incarnation=pulled["incarnation"],
                version=pulled["version"],
                samples=len(y),
                worker=self.name,
                if_match=version,
                key=key,
            )

        return {**(self.again(push) if self.options.twice else push()), "loss": loss}

    def again(self, send: Callable[[], dict]) -> dict:
        """The same request twice, as if the first answer were lost; now and then before there is one."""
        results: list[dict | gradd.GraddError] = []

        def attempt() -> None:
            try:
                results.append(send())
            except gradd.GraddError as problem:
                results.append(problem)

        first = threading.Thread(target=attempt)
        first.start()
        if random.random() < 0.98:
            first.join()
        attempt()
        first.join()
        answers = [result for result in results if isinstance(result, dict)]
        if not answers:
            raise next(result for result in results if isinstance(result, gradd.GraddError))
        effects = [answer for answer in answers if "replayed" not in answer]
        if len(effects) != 1 or len({answer["applied_version"] for answer in answers}) != 1:
            raise RuntimeError(f"a repeated request had not one effect: {answers}")
        return answers[0]

    def update(self, number: int, key: str, version: str | None = None) -> dict:
        if self.options.compute == "worker":
            return self.computed_here(number, key, version)
        if self.options.twice:
            return self.again(lambda: self.computed_by_server(number, key, version))
        return self.computed_by_server(number, key, version)

    # --- all of them --------------------------------------------------------------------------------

    def run(self) -> None:
        """In rounds, batches are numbered by the version that they are applied to: so all workers agree on
        the number, and on when to stop, also with one who came late. Otherwise each counts its own."""
        options = self.options
        seen = self.api.describe(options.model)
        number = seen["version"] if options.rounds else 0
        attempt = 0
        while number < options.updates:
            key = f"{seen['incarnation']}-{self.name}-{number}-{attempt}"
            self.note(asked=number, key=key)
            started = time.monotonic()
            try:
                answer = self.update(number, key, gradd.etag(seen) if options.rounds else None)
            except gradd.GraddError as problem:
                # Late for a round or too stale, or the round failed: nothing happened. Look, and go on.
                if problem.slug not in ("stale", "round-failed"):
                    raise
                self.note(refused=problem.slug, seconds=time.monotonic() - started)
                seen = self.api.describe(options.model)
                number = seen["version"] if options.rounds else number
                attempt += 1
                continue
            self.note(
                key=key,
                applied=answer["applied_version"],
                contributions=answer.get("round", {}).get("contributions", 1),
                loss=answer["loss"],
                seconds=time.monotonic() - started,
            )
            seen = answer
            number = answer["applied_version"] if options.rounds else number + 1


if __name__ == "__main__":
    Worker(arguments().parse_args()).run()
