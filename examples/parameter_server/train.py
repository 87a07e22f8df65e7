"""A fleet of workers trains one model: alone, asynchronously, in rounds, and with faults.

    train.py                      each mode once, with a chart of loss and accuracy against time
    train.py --kill               the fleet of four with one worker killed, one paused, one repeating itself
    train.py --compare            a synchronous fleet against one worker on the joined batches
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import chart  # noqa: E402
import common  # noqa: E402
import worker  # noqa: E402
from common import gradd  # noqa: E402

MODEL = "fleet"
JOINED = 256  # samples of all workers' batches together

# Asynchronous workers make four updates where the others make one, each of a quarter of the samples.
MODES = {
    "one": {"workers": 1, "lr": 0.1},
    "async": {"workers": 4, "lr": 0.01},
    "pull": {"workers": 4, "lr": 0.01, "compute": "worker"},
    "sync": {"workers": 4, "lr": 0.1, "rounds": True},
}


def specification(data: common.Data, lr: float, **settings: object) -> dict:
    return {
        "name": MODEL,
        "seed": 1,
        "inputs": {"x": {"shape": [data.x.shape[1]]}},
        "layers": [
            {"op": "linear", "out_features": 256},
            {"op": "relu"},
            {"op": "linear", "out_features": 128},
            {"op": "relu"},
            {"op": "linear", "out_features": 10},
        ],
        "loss": {"op": "cross_entropy"},
        "optimizer": {"op": "sgd", "lr": lr, "momentum": 0.9},
        **settings,
    }


def in_rounds(workers: int, **settings: int) -> dict:
    return {"mode": "sync", "workers": workers, "timeout_ms": 20000, "reduce": "mean", **settings}


class Fleet:
    """The workers' processes, and what they wrote."""

    def __init__(self, url: str, options: argparse.Namespace, workers: int, updates: int, **settings: object) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.flags = ["--url", url, "--model", MODEL, "--data", options.data, "--folder", options.folder]
        self.flags += ["--workers", str(workers), "--batch", str(JOINED // workers), "--updates", str(updates)]
        self.flags += ["--rounds"] if settings.get("rounds") else []
        self.flags += ["--compute", str(settings.get("compute", "server"))]
        self.started = time.time()
        self.processes: list[subprocess.Popen] = []

    def flags_of(self, rank: int, *own: str) -> list[str]:
        return [*self.flags, "--rank", str(rank), "--log", f"{self.folder.name}/{rank}", *own]

    def start(self, rank: int, *own: str) -> subprocess.Popen:
        command = [sys.executable, str(HERE / "worker.py"), *self.flags_of(rank, *own)]
        process = subprocess.Popen(command, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
        self.processes.append(process)
        return process

    def running(self) -> bool:
        return any(process.poll() is None for process in self.processes)

    def must_run(self) -> None:
        if not self.running():
            raise SystemExit("the workers ended early")

    def lines(self, rank: int) -> list[dict]:
        path = pathlib.Path(self.folder.name, str(rank))
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def updates(self) -> list[dict]:
        """The lines of all accepted updates, by the time of their answers."""
        lines = [line for rank in range(len(self.processes)) for line in self.lines(rank)]
        return sorted((line for line in lines if "applied" in line), key=lambda line: line["time"])

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
        self.folder.cleanup()


class Run:
    """What a mode gave."""

    def __init__(self) -> None:
        self.loss: chart.Line = []
        self.accuracy: chart.Line = []
        self.version = 0

    def look(self, api: gradd.Client, data: common.Data, since: float) -> None:
        self.accuracy.append((time.time() - since, common.accuracy(api, MODEL, data, "4")))


def updates_of(data: common.Data, epochs: float) -> int:
    return int(epochs * (len(data.y) // JOINED))


def train(api: gradd.Client, url: str, options: argparse.Namespace, data: common.Data, mode: str) -> Run:
    """One mode from a new model to its end. At two thirds of the way the learning rate becomes a tenth."""
    settings = dict(MODES[mode])
    workers, lr = settings.pop("workers"), settings.pop("lr")
    more = {"aggregation": in_rounds(workers)} if settings.get("rounds") else {}
    common.create(api, specification(data, lr, **more))
    updates = updates_of(data, options.epochs)
    last = updates if settings.get("rounds") else updates * workers
    run = Run()
    with Fleet(url, options, workers, updates, **settings) as fleet:
        for rank in range(workers):
            fleet.start(rank)
        slow = False
        while fleet.running():
            if not slow and api.describe(MODEL)["version"] >= last * 2 / 3:
                api.patch(MODEL, {"optimizer": {"lr": lr / 10}})
                slow = True
            run.look(api, data, fleet.started)
            time.sleep(options.look)
        if any(process.returncode for process in fleet.processes):
            raise SystemExit(f"{mode}: a worker failed")
        run.look(api, data, fleet.started)
        run.loss = [(line["time"] - fleet.started, line["loss"]) for line in fleet.updates()]
    run.version = api.describe(MODEL)["version"]
    if run.version != last:
        raise SystemExit(f"{mode}: {last} updates were accepted, and the version is {run.version}")
    seconds, reached = run.accuracy[-1]
    print(f"{mode:6} accuracy {reached:.4f}, {run.version} updates in {seconds:.1f} s", flush=True)
    return run


# --- --compare ----------------------------------------------------------------------------------------


def trained(
    api: gradd.Client, url: str, options: argparse.Namespace, data: common.Data, workers: int, dtype: str
) -> dict:
    """The parameters after some updates, at a rate where a difference in the last bit does not grow."""
    rounds = workers > 1
    more = {"aggregation": in_rounds(workers)} if rounds else {}
    common.create(api, specification(data, 0.01, dtype=dtype, **more))
    with Fleet(url, options, workers, options.steps, rounds=rounds) as fleet:
        for process in [fleet.start(rank) for rank in range(workers)]:
            if process.wait():
                raise SystemExit("a worker failed")
    pulled = api.parameters(MODEL)
    assert pulled["version"] == options.steps
    return pulled["parameters"]


def compare(api: gradd.Client, url: str, options: argparse.Namespace, data: common.Data) -> None:
    """In float64, where a sum's last bit does not decide on which side of a ReLU's kink a sample lies."""
    one, four = (trained(api, url, options, data, workers, "F64") for workers in (1, 4))
    apart = max(float(np.abs(one[name] - four[name]).max()) for name in one)
    first, again = (gradd.pack(trained(api, url, options, data, 4, "F32")) for _ in range(2))
    same = first == again
    print(f"after {options.steps} steps four workers are {apart:.2g} away from one; ", end="")
    print(f"a second run of four has {'the same' if same else 'OTHER'} bytes")
    if apart > 1e-12 or not same:
        raise SystemExit(1)


# --- --kill -------------------------------------------------------------------------------------------


def wait_for(fleet: Fleet, api: gradd.Client, version: float) -> None:
    while api.describe(MODEL)["version"] < version:
        fleet.must_run()
        time.sleep(0.02)


def wait_for_all(fleet: Fleet) -> None:
    """Until every worker has made an update."""
    while not all(any("applied" in line for line in fleet.lines(rank)) for rank in range(len(fleet.processes))):
        fleet.must_run()
        time.sleep(0.02)


def settle(fleet: Fleet, api: gradd.Client, rank: int) -> list[dict]:
    """Sends the killed worker's last request again under its key. If it had been accepted, the service replays the
    answer; if not, it accepts the request now. In a round it may come too late. Returns the accepted update, if any."""
    lines = fleet.lines(rank)
    answered = {line["key"] for line in lines if "applied" in line}
    asked = [line for line in lines if "asked" in line]
    if not asked or asked[-1]["key"] in answered or "refused" in lines[-1]:
        return []
    dead = worker.Worker(worker.arguments().parse_args(fleet.flags_of(rank)))
    number, key = asked[-1]["asked"], asked[-1]["key"]
    match = f'"{api.describe(MODEL)["incarnation"]}-{number}"' if dead.options.rounds else None
    try:
        answer = dead.update(number, key, match)
    except gradd.GraddError as problem:
        if problem.slug not in ("stale", "round-failed"):
            raise
        return []
    print(f"the last request of the killed worker {'had been' if 'replayed' in answer else 'is now'} accepted")
    contributions = answer.get("round", {}).get("contributions", 1)
    return [{"key": key, "applied": answer["applied_version"], "contributions": contributions}]


def count(accepted: list[dict], version: int) -> int:
    """The number of distinct accepted updates. They must make all versions: each version one update, or as many as
    its round had contributions."""
    made: dict[int, set[str]] = {}
    for line in accepted:
        made.setdefault(line["applied"], set()).add(line["key"])
    if set(made) != set(range(1, version + 1)):
        raise SystemExit(f"the version is {version}, and updates made {len(made)}")
    wrong = [line for line in accepted if line["contributions"] != len(made[line["applied"]])]
    if wrong:
        raise SystemExit(f"lost, or counted twice: {wrong}")
    return sum(map(len, made.values()))


def kill(api: gradd.Client, url: str, options: argparse.Namespace, data: common.Data, mode: str) -> None:
    """Four workers; the second is killed, the third paused, the fourth sends every request twice."""
    settings = dict(MODES[mode])
    workers, lr = settings.pop("workers"), settings.pop("lr")
    rounds = settings.get("rounds", False)
    # The pushed gradient of the paused worker is refused when it comes too late.
    more = {"aggregation": in_rounds(4, quorum=2, timeout_ms=500)} if rounds else {"max_staleness": 64}
    common.create(api, specification(data, lr, **more))
    updates = updates_of(data, options.epochs)
    last = updates if rounds else updates * workers
    with Fleet(url, options, workers, updates, **settings) as fleet:
        fleet.start(0)
        killed = fleet.start(1)
        paused = fleet.start(2, "--compute", "worker") if not rounds else fleet.start(2)
        fleet.start(3, "--twice")
        wait_for_all(fleet)
        wait_for(fleet, api, last * 0.2)
        killed.kill()
        killed.wait()
        print(f"{mode}: a worker was killed at version {api.describe(MODEL)['version']}")
        wait_for(fleet, api, api.describe(MODEL)["version"] + 2)  # it goes on without
        if rounds:
            api.patch(MODEL, {"aggregation": {"workers": 3}})  # so that nobody waits for it any more
        paused.send_signal(signal.SIGSTOP)
        begun = api.describe(MODEL)["version"]
        time.sleep(options.pause)
        paused.send_signal(signal.SIGCONT)
        ended = api.describe(MODEL)["version"]
        print(f"{mode}: a worker was paused for {options.pause:g} s, from version {begun} to {ended}")
        slow = False
        while fleet.running():
            if not slow and api.describe(MODEL)["version"] >= last / 2:
                api.patch(MODEL, {"optimizer": {"lr": lr / 10}})
                slow = True
            time.sleep(0.1)
        if any(process.returncode for process in fleet.processes if process is not killed):
            raise SystemExit("a worker failed")
        accepted = fleet.updates() + settle(fleet, api, 1)
        slowest = max(line.get("seconds", 0) for rank in range(4) for line in fleet.lines(rank))
        refused = sum("refused" in line for rank in range(4) for line in fleet.lines(rank))
    version = api.describe(MODEL)["version"]
    updates = count(accepted, version)
    reached = common.accuracy(api, MODEL, data, "4")
    print(f"{mode}: accuracy {reached:.4f}, version {version}, {updates} distinct accepted updates, ", end="")
    print(f"{refused} refused, slowest request {slowest:.2f} s", flush=True)
    if slowest > worker.TIMEOUT or reached < options.reach:
        raise SystemExit("a request hung, or the accuracy was not reached")


# --- the command --------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--modes", help=f"some of {','.join(MODES)}")
    parser.add_argument("--url", help="a running daemon; without it one is started")
    parser.add_argument("--data", choices=("fashion-mnist", "digits"), default="fashion-mnist")
    parser.add_argument("--folder", default=common.FASHION_MNIST, help="where the files of Fashion-MNIST are")
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument("--steps", type=int, default=200, help="of --compare")
    parser.add_argument("--reach", type=float, default=0.88, help="the accuracy that must be reached")
    parser.add_argument("--pause", type=float, default=10, help="seconds that --kill pauses a worker for")
    parser.add_argument("--look", type=float, default=0.5, help="seconds between two tests of the accuracy")
    parser.add_argument("--chart", default="parameter_server.svg", help="where to draw loss and accuracy")
    options = parser.parse_args()
    data = common.digits() if options.data == "digits" else common.fashion_mnist(options.folder)
    modes = (options.modes or ("async,sync" if options.kill else ",".join(MODES))).split(",")

    with common.service(options.url) as url, common.client(url) as api:
        if options.compare:
            compare(api, url, options, data)
            return
        if options.kill:
            for mode in modes:
                kill(api, url, options, data, mode)
            return
        runs = {mode: train(api, url, options, data, mode) for mode in modes}
    loss = {mode: chart.smooth(run.loss) for mode, run in runs.items()}
    accuracy = {mode: run.accuracy for mode, run in runs.items()}
    panels = {"training loss": loss, "test accuracy": accuracy}
    pathlib.Path(options.chart).write_text(chart.svg(panels, least={"test accuracy": 0.7}))
    print(f"drawn in {options.chart}")
    short = [mode for mode, run in runs.items() if run.accuracy[-1][1] < options.reach]
    if short:
        raise SystemExit(f"below {options.reach}: {', '.join(short)}")


if __name__ == "__main__":
    main()
