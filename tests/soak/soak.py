"""Everything at once for SOAK_SECONDS (1800), while the daemon is killed or stopped, and started again on what it has
stored. SOAK_SEED (drawn): of what is done. Written to BUILD/soak: what happened, and the daemon's directory."""

from __future__ import annotations

import collections
import hashlib
import os
import pathlib
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

from support import Daemon, free_port, main  # noqa: E402

import graphs  # noqa: E402, isort: skip
from caller import Client, Gone, Tally  # noqa: E402
from workload import ACTIONS, Worker, World  # noqa: E402

SECONDS = float(os.environ.get("SOAK_SECONDS") or 1800)
SEED = int(os.environ.get("SOAK_SEED") or secrets.randbelow(1 << 32))
FOLDER = pathlib.Path(os.environ["BUILD"]).absolute() / "soak"
WORKERS = 20
CONNECTIONS = 64
KEY_TTL, CONTEXT_TTL = (30, 5) if SECONDS > 60 else (6, 3)
MEMORY = 48 << 20
FLAGS = {
    "memory": MEMORY, "queue": 8, "compute-threads": 3, "max-models": 48, "max-contexts": 24, "max-keys": 8000,
    "key-ttl": KEY_TTL, "context-ttl": CONTEXT_TTL, "client-requests": 6, "connections": CONNECTIONS,
    "address-connections": 24, "checkpoint-interval": 2, "journal-size": "1M", "batch-max": 16, "max-body": "4M",
    "header-timeout": 5, "body-timeout": 20, "idle-timeout": 20, "drain-timeout": 60,
}  # fmt: skip
ANCHORS = {"journal-0": "journal", "journal-1": "journal", "twin": "snapshot", "snapshot-0": "snapshot"}


class Soak:
    def __init__(self) -> None:
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        self.log_file = (FOLDER / "log").open("w")
        self.began = time.monotonic()
        # Freed blocks that ASan keeps are not to look like a leak.
        os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=32"
        self.chance = random.Random(SEED)
        self.tally = Tally()
        self.tally.on_fault = self.log
        self.tokens = {name: secrets.token_hex(16) for name in ("all", "read", "churn")}
        self.write_tokens()
        self.port = free_port()
        self.world = World(self.port, self.tally, self.tokens, KEY_TTL / 3)
        self.client = Client(self.port, self.tally, self.tokens["all"])
        self.daemon: Daemon | None = None
        self.workers: list[Worker] = []
        self.log(f"seed {SEED}, {SECONDS:.0f} s")

    def log(self, text: str) -> None:
        self.log_file.write(f"{time.monotonic() - self.began:8.1f} {text}\n")
        self.log_file.flush()

    # --- the daemon ---

    def write_tokens(self, more: str = "") -> None:
        lines = [
            f"{name} {scope} {hashlib.sha256(self.tokens[name].encode()).hexdigest()} {prefix}\n"
            for name, scope, prefix in (("all", "admin", ""), ("read", "read", ""), ("churn", "admin", "churn-"))
        ]
        beside = FOLDER / "tokens~"
        beside.write_text("".join(lines) + more)
        beside.replace(FOLDER / "tokens")

    def start(self) -> None:
        flags = [f"--{name}={value}" for name, value in FLAGS.items()]
        begin = time.monotonic()
        self.daemon = Daemon(
            *flags, "--data", str(FOLDER / "data"), "--token-file", str(FOLDER / "tokens"),
            listen=f"127.0.0.1:{self.port}",
        )  # fmt: skip
        self.tally.count("starts")
        self.log(f"started in {time.monotonic() - begin:.1f} s, pid {self.daemon.process.pid}")

    def end(self, how: signal.Signals) -> None:
        """Under full load; whoever finds the daemon gone waits until it is up again."""
        assert self.daemon
        process = self.daemon.process
        self.scrape()
        process.send_signal(how)
        self.world.up.clear()
        status = process.wait(120)
        assert process.stdout
        process.stdout.close()
        self.tally.count(how.name)
        if status != (-signal.SIGKILL if how == signal.SIGKILL else 0):
            self.tally.fault("process", f"it ended with status {status} after {how.name}")
        self.client.close()
        seen = subprocess.run([os.environ["GRADD"], "verify", FOLDER / "data"], capture_output=True, text=True)
        if seen.returncode != 0:
            self.tally.fault("verify", f"status {seen.returncode}: {seen.stdout[-500:]} {seen.stderr[-1000:]}")

    def alive(self) -> bool:
        return bool(self.daemon) and self.daemon.process.poll() is None

    def gauge(self) -> tuple[int, int, int]:
        """Its memory in KiB, threads and descriptors."""
        assert self.daemon
        folder = pathlib.Path(f"/proc/{self.daemon.process.pid}")
        text = (folder / "status").read_text()
        values = [int(re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)[1]) for name in ("VmRSS", "Threads")]
        return values[0], values[1], len(list((folder / "fd").iterdir()))

    def metrics(self) -> dict[str, float]:
        page = self.client.call("metrics", "GET", "/metrics").body.decode()
        return {name: float(value) for name, value in re.findall(r"^(\w+(?:\{[^}]*\})?) (\S+)$", page, re.MULTILINE)}

    def scrape(self) -> None:
        try:
            page = self.metrics()
        except Gone:
            self.tally.count("scrapes that were lost")
            return
        for name, value in page.items():
            if re.match(r"gradd_(requests_total|rounds_total|versions_total|store_|checkpoints|journal)", name):
                self.tally.count(re.sub(r'method="\w+",route="[^"]*",', "", name), int(value))
        for slug in ("internal", "corrupt"):
            if page.get(f'gradd_refusals_total{{problem="{slug}"}}'):
                self.tally.fault("answers", f"there were problems {slug}")

    # --- lives ---

    def create_anchors(self) -> None:
        ledger, chance = self.world.ledger, self.chance
        drawn = {name: graphs.draw(chance) for name in ("journal-0", "journal-1", "snapshot-0", "oracle", "team")}
        drawn["twin"] = drawn["journal-0"]
        settings = {name: {"durability": durability} for name, durability in ANCHORS.items()}
        settings["oracle"] = {"durability": "journal", "coalesce": True}
        settings["team"] = {
            "durability": "journal",
            "aggregation": {"mode": "sync", "workers": 3, "quorum": 2, "timeout_ms": 300},
        }
        for name, more in settings.items():
            document = {**drawn[name].specification, **more, "name": name}
            answer = self.client.call("create", "POST", "/models", self.world.document(chance, **document))
            ledger.add(name, anchor=True).born(drawn[name], more["durability"], answer)
            if name not in ("team", "twin"):
                batch = graphs.batch(chance, drawn[name], 5, targets=False)
                self.world.fixed[name] = graphs.encode(chance, {"model": name, "seed": 1}, batch, json_only=True)

    def live(self, seconds: float) -> None:
        """Lets the clients on it, and looks at it meanwhile."""
        gauges: list[tuple[int, int, int]] = []
        self.world.up.set()
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.alive():
            time.sleep(min(2.0, max(0.0, end - time.monotonic())))
            if not self.alive():
                break
            gauges.append(self.gauge())
            self.reload_tokens()
        if not self.alive():
            self.world.up.clear()
            self.tally.fault("process", f"it ended by itself: {self.daemon and self.daemon.process.returncode}")
            return
        self.judge(gauges)

    def judge(self, gauges: list[tuple[int, int, int]]) -> None:
        if not gauges:
            return
        memory, threads, files = (max(column) for column in zip(*gauges))
        self.log(f"at most {memory >> 10} MiB, {threads} threads, {files} descriptors; {self.sum()}")
        if files > CONNECTIONS + 64:
            self.tally.fault("process", f"{files} descriptors")
        if len(gauges) >= 30:
            third = len(gauges) // 3
            before, after = (max(g[0] for g in part) for part in (gauges[third : 2 * third], gauges[2 * third :]))
            if after > 1.25 * before + (48 << 10):
                self.tally.fault("process", f"its memory grew from {before} to {after} KiB within a life")
            if max(g[1] for g in gauges[2 * third :]) > max(g[1] for g in gauges[:third]) + 2:
                self.tally.fault("process", "its threads became more")

    def reload_tokens(self) -> None:
        """The file changes beneath it; a bad one has no effect."""
        if self.chance.random() < 0.5:
            return
        other = hashlib.sha256(self.chance.randbytes(8)).hexdigest()
        self.write_tokens(self.chance.choice((f"guest read {other}\n", "", "bad line\n", "x" * 100000)))
        assert self.daemon
        self.daemon.process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        self.write_tokens()
        self.tally.count("SIGHUP")

    def sum(self) -> str:
        with self.tally.lock:
            answers = sum(self.tally.answers.values())
            faults = sum(len(texts) for texts in self.tally.faults.values())
        return f"{answers} answers, {self.tally.events['starts']} starts, {faults} faults"

    def run(self) -> None:
        clean = None
        while True:
            self.start()
            if clean is None:
                self.create_anchors()
                self.workers = [Worker(self.world, i, SEED) for i in range(WORKERS)]
                for worker in self.workers:
                    worker.start()
            else:
                self.world.ledger.check(self.client, clean)
            left = max(0.0, SECONDS - (time.monotonic() - self.began))
            self.live(min(left, SECONDS * self.chance.choice((0.005, 0.02, 0.03, 0.06, 0.15))))
            if not self.alive():
                return
            if time.monotonic() - self.began >= SECONDS:
                break
            how = self.chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
            self.end(how)
            clean = how == signal.SIGTERM
        self.finish()

    def finish(self) -> None:
        """When all is deleted and has had its time, nothing is held."""
        self.world.stop.set()
        for worker in self.workers:
            worker.join(60)
            if worker.is_alive():
                self.tally.fault("harness", f"thread {worker.number} does not end")
        self.scrape()
        for model in self.client.call("list", "GET", "/models").members["models"]:
            self.client.call("delete", "DELETE", f"/models/{model['name']}")
        end = time.monotonic() + KEY_TTL + CONTEXT_TTL + 10
        while True:
            page = self.metrics()
            held = {
                name: page[f"gradd_{name}"]
                for name in ("models", "contexts", "idempotency_keys", "memory_reserved_bytes", "queue_length")
            }
            if not any(held.values()) or time.monotonic() > end:
                break
            time.sleep(1)
        self.log(f"in the end {held}, {self.gauge()}")
        if any(held.values()):
            self.tally.fault("end", f"it holds {held}")
        if page["gradd_requests_in_flight"] != 1:
            self.tally.fault("end", f"{page['gradd_requests_in_flight']} requests in flight")
        self.end(signal.SIGTERM)
        self.start()
        if self.client.call("list", "GET", "/models").members["models"]:
            self.tally.fault("end", "deleted models are there after a start")
        self.end(signal.SIGTERM)
        left = sorted(path.name for path in (FOLDER / "data").iterdir())
        self.log(f"on the disk: {left}")
        if len(left) > 4 * FLAGS["max-models"]:
            self.tally.fault("end", f"{len(left)} files are left of no model")
        numbers = [int(name.rpartition("-")[2]) for name in left if name.startswith("checkpoint-")]
        self.tally.count("checkpoints", max(numbers, default=0))

    def report(self) -> None:
        for (kind, what), n in sorted(self.tally.answers.items()):
            self.log(f"{n:9} {kind}: {what}")
        for event, n in sorted(self.tally.events.items()):
            if n:
                self.log(f"{n:9} {event}")
        print(f"# {self.sum()}; seed {SEED}; {FOLDER / 'log'}")


class Everything(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.soak = Soak()

    def faults(self, *sorts: str) -> None:
        texts = [f"{sort}: {text}" for sort in sorts for text in self.soak.tally.faults[sort]]
        self.assertEqual(len(texts), 0, "\n".join(texts[:50]))

    def test_1_it_runs(self):
        try:
            self.soak.run()
        finally:
            self.soak.world.stop.set()
            self.soak.report()
        self.faults("process", "harness")

    def test_2_answers_are_known_ones(self):
        self.faults("answers")

    def test_3_what_was_durable_is_there_after_a_start(self):
        self.faults("durable", "models", "incarnations", "verify")

    def test_4_no_change_is_made_twice(self):
        self.faults("keys", "versions")

    def test_5_numbers_are_the_same_in_any_company(self):
        self.faults("numbers")

    def test_6_nothing_is_held_in_the_end(self):
        self.faults("end")

    def test_7_every_kind_of_call_succeeded(self):
        asked, good = collections.Counter(), {"no token", "reader trains", "other prefix", "wrong", "cut short"}
        for (kind, what), n in self.soak.tally.answers.items():
            asked[kind] += n
            if what in ("200", "201", "304", "sent"):
                good.add(kind)
        self.assertEqual([kind for kind, n in asked.items() if kind not in good and n > 20], [])
        self.assertGreater(len(asked), len(ACTIONS))


if __name__ == "__main__":
    main()
