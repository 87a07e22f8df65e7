"""For the tests of tests/python: the client on the path, a daemon of their own, and TAP."""

import ctypes
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "clients" / "python"))

LINE = {
    "name": "line",
    "seed": 1,
    "inputs": {"x": {"shape": [2]}},
    "layers": [{"op": "linear", "out_features": 1}],
    "loss": {"op": "mse"},
    "optimizer": {"op": "sgd", "lr": 0.5},
}


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no daemon outlives a test that is killed


def free_port() -> int:
    """A port for who cannot choose one while binding. The kernel gives no port of this range to anyone who does."""
    given = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    while True:
        port = random.randrange(10000, int(given[0]))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Daemon:
    """A gradd on a free port of the loopback, or where told; it is stopped at the end of the `with`."""

    def __init__(self, *flags: str, listen: str = "127.0.0.1:0", token: str = "") -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GRADD_")}
        if token:
            environment["GRADD_TOKEN"] = token
        gradd = os.path.abspath(os.environ["GRADD"])
        command = [gradd, "--listen", listen, "--log", "off", *flags]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=die_with_parent
        )
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise RuntimeError(f"{command} said {line!r}")
        self.url = line.split()[-1]

    def stop(self) -> None:
        self.process.terminate()
        self.process.stdout.close()
        if self.process.wait(60) != 0:
            raise RuntimeError(f"the daemon ended with status {self.process.returncode}")

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


class Tap(unittest.TestResult):
    def __init__(self, names: list) -> None:
        super().__init__()
        self.names = names

    def report(self, test: unittest.TestCase, good: bool, why: str = "") -> None:
        name = test.id().replace("__main__.", "")
        number = self.names.index(test.id()) + 1 if test.id() in self.names else 0
        print(f"{'' if good else 'not '}ok {number} - {name}", flush=True)
        print("".join(f"# {line}\n" for line in why.splitlines()), end="", flush=True)

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.report(test, True)

    def addFailure(self, test: unittest.TestCase, err: tuple) -> None:
        super().addFailure(test, err)
        self.report(test, False, self.failures[-1][1])

    def addError(self, test: unittest.TestCase, err: tuple) -> None:
        super().addError(test, err)
        self.report(test, False, self.errors[-1][1])

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: tuple) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.report(test, False, f"{subtest}\n{(self.failures + self.errors)[-1][1]}")


def main() -> None:
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    names = [test.id() for case in suite for test in case]
    print(f"1..{len(names)}", flush=True)
    result = Tap(names)
    suite.run(result)
    sys.exit(not result.wasSuccessful())
