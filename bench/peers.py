"""Who is measured. A peer takes a Work and answers with its variants: functions that do the work `count`
times and tell how long it took. Where there are several variants (numbers of threads), the fastest counts."""
import dataclasses
import json
import os
import subprocess
import sys
import tempfile

import company
import wire

BUILD = os.environ.get("BUILD", "build")
DAEMON = os.environ.get("GRADD", os.path.join(BUILD, "gradd"))
THREADS = sorted({1, os.cpu_count()})
HERE = os.path.dirname(os.path.abspath(__file__))


@dataclasses.dataclass(frozen=True)
class Work:
    """`what` is forward, gradients, apply, pull, push, or a job of one of the programs (see *.c)."""
    what: str
    layers: str = "2-2"  # widths, joined by "-"
    rows: int = 1
    clients: int = 1
    encoding: str = "safetensors"
    spec: tuple = ()  # further members of the model's specification: (name, JSON)

    @property
    def widths(self):
        return [int(width) for width in self.layers.split("-")]

    @property
    def samples(self):
        return self.rows if self.what in ("forward", "gradients", "apply") else 1


@dataclasses.dataclass
class Timing:
    seconds: float
    median: float = 0  # latency of a request
    p99: float = 0


class Failed(Exception):
    pass


# OpenBLAS's own threads, of which only the floor has any, else spin for 26 ms after a product, and that would
# be in the next peer's time. So many cycles (2^20) still bridge the gap between two products.
IDLE = {"OPENBLAS_THREAD_TIMEOUT": "20"}

# --- processes --------------------------------------------------------------------------------------

class Program:
    """A process that answers a line with a line."""

    def __init__(self, *command):
        self.name = " ".join(map(os.path.basename, command))
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=os.environ | IDLE)

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise Failed(f"{self.name} ended at: {' '.join(map(str, words))}")
        return [float(word) for word in answer.split()]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Server:
    """A process that says where it listens."""

    def __init__(self, *command, stderr=None):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
                                        text=True)
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise Failed(f"{command[-1]} did not start")
        self.port = int(line.rsplit(":", 1)[1])

    def close(self):
        self.process.stdin.close()
        self.process.terminate()
        self.process.wait()


def program(name):
    return os.path.join(BUILD, "bench", name)


class Loader:
    """The client of all who are measured over HTTP: the same bytes each time."""

    def __init__(self):
        self.program = Program(program("load"))
        self.folder = tempfile.TemporaryDirectory()
        self.files = 0

    def file(self, request):
        self.files += 1
        path = os.path.join(self.folder.name, str(self.files))
        with open(path, "wb") as file:
            file.write(request)
        return path

    def send(self, port, clients, count, *paths):
        """(Timing, bytes of an answer's body)"""
        seconds, median, p99, size = self.program.ask(count, port, clients, *paths)
        return Timing(seconds, median, p99), int(size)

    def sender(self, port, work, request):
        path = self.file(request)
        return lambda count: self.send(port, work.clients, count, path)[0]

    def close(self):
        self.program.close()
        self.folder.cleanup()


# --- in process -------------------------------------------------------------------------------------

class InProcess:
    def __init__(self, name, *command, threads=THREADS, stays=False):
        self.name, self.command, self.threads = name, command, threads
        self.stays = stays  # for the next scenario: what takes long to start, and holds one job's memory alone
        self.program = None

    def variants(self, work):
        self.program = self.program or Program(*self.command)

        def run(threads):
            return lambda count: Timing(*self.program.ask(count, threads, work.what, work.rows, work.layers))
        if len(self.threads) == 1:
            return {"": run(self.threads[0])}
        return {f"{n} thread{'s' * (n > 1)}": run(n) for n in self.threads}

    def finish(self):
        if not self.stays:
            self.close()

    def close(self):
        if self.program:
            self.program.close()
        self.program = None


def core(name="core, in process", threads=None):
    return InProcess(name, program("core"), threads=(threads or os.cpu_count(),))


def torch():
    return InProcess("PyTorch, in process", sys.executable, os.path.join(HERE, "torch_peer.py"), stays=True)


def floor(name="BLAS alone"):
    return InProcess(name, program("floor"))


def disk():
    return InProcess("a bare disk", program("disk"), BUILD, threads=(1,))


def json_array():
    return InProcess("JSON", program("numbers"), threads=(1,))


# --- over HTTP --------------------------------------------------------------------------------------

def body_of(work, encoding, model=None):
    x, y = wire.batch(work.rows, work.widths)
    if encoding == "raw":
        return x.tobytes() + (b"" if work.what == "forward" else y.tobytes())
    members, tensors = {"model": model}, {"inputs/x": x}
    if work.what != "forward":
        tensors["targets/y"] = y
    if work.what == "apply":
        members["apply"] = True
    return wire.document(encoding, members, tensors)


def specification(work, name):
    layers = [{"op": "relu"} if i % 2 else {"op": "linear", "out_features": work.widths[1 + i // 2]}
              for i in range(2 * len(work.widths) - 3)]
    members = {"name": name, "seed": 1, "inputs": {"x": {"shape": [work.widths[0]]}}, "layers": layers,
               "loss": {"op": "cross_entropy"}, "optimizer": {"op": "sgd", "lr": 1e-4}}
    return members | {member: json.loads(value) for member, value in work.spec}


class Gradd:
    """The daemon. A model lives as long as its scenario."""
    stderr = None

    def __init__(self, loader, name="gradd, over HTTP", flags=()):
        self.name, self.loader, self.flags = name, loader, flags
        self.server, self.models = None, {}

    def start(self):
        if not self.server:
            self.server = Server(DAEMON, "--listen", "127.0.0.1:0", "--log", "off",
                                 "--idle-timeout", "24h", *self.flags, stderr=self.stderr)
        return self.server.port

    def model(self, work):
        """Its name; created and set if there is none for this work."""
        key = (work.layers, work.spec)
        if key not in self.models:
            name = self.models[key] = f"bench-{len(self.models)}"
            port = self.start()
            weights = wire.safetensors(None, wire.weights(work.layers))
            wire.call(port, "POST", "/models", wire.json_document(specification(work, name), {}))
            wire.call(port, "PUT", f"/models/{name}/parameters", weights, "safetensors")
        return self.models[key]

    def request(self, work):
        model = self.model(work)
        if work.what == "pull":
            return wire.request("GET", f"/models/{model}/parameters", encoding=work.encoding)
        if work.what == "push":
            return wire.request("PUT", f"/models/{model}/parameters",
                                wire.safetensors(None, wire.weights(work.layers)))
        path = "/forward" if work.what == "forward" else "/backward"
        return wire.request("POST", path, body_of(work, work.encoding, model), work.encoding)

    def variants(self, work):
        request = self.request(work)
        return {"": self.loader.sender(self.server.port, work, request)}

    def coalescing(self):
        """What switches it on and off in a specification; None if this daemon has no such setting."""
        port, on = self.start(), ("coalesce", "true")
        model = wire.json_document(specification(Work("forward", spec=(on,)), "probe"), {})
        text = wire.call(port, "POST", "/models", model, expected=None)
        wire.call(port, "DELETE", "/models/probe", expected=None)
        return None if b"urn:gradd:problem" in text else {"on": (on,), "off": ()}

    def same_bytes(self, work):
        model = self.model(work)
        return company.same_bytes(self.server.port, model, work.widths[0], work.clients)

    def finish(self):
        for name in self.models.values():
            wire.call(self.server.port, "DELETE", f"/models/{name}")
        self.models = {}

    def close(self):
        if self.server:
            self.server.close()
        self.server = None


class Stored(Gradd):
    """The daemon with a store, in a folder beside what was built: on a disk, where /tmp may be none."""

    def __init__(self, loader):
        super().__init__(loader, "gradd, with --data")
        self.folder = None

    def start(self):
        if not self.folder:
            self.folder = tempfile.TemporaryDirectory(dir=BUILD)
            self.flags = ("--data", self.folder.name)
        return super().start()

    def close(self):
        super().close()
        if self.folder:
            self.folder.cleanup()
        self.folder = None


class FastApi:
    name = "PyTorch behind FastAPI"

    def __init__(self, loader):
        self.loader, self.server = loader, None

    def variants(self, work):
        if not self.server:
            self.server = Server(sys.executable, os.path.join(HERE, "fastapi_peer.py"))
        port = self.server.port
        if work.what == "pull":
            requests = {"": wire.request("GET", "/parameters", b"", "raw")}
        elif work.what == "push":
            body = b"".join(tensor.tobytes() for tensor in wire.weights(work.layers).values())
            requests = {"": wire.request("PUT", "/parameters", body, "raw")}
        else:
            body = body_of(work, "raw")
            requests = {name: wire.request("POST", f"{path}/{work.what}", body, "raw")
                        for name, path in (("on the loop", ""), ("on threads", "/threads"))}

        def run(n, request):
            send = self.loader.sender(port, work, request)

            def with_threads(count):
                if self.using != n:
                    wire.call(port, "POST", f"/model?layers={work.layers}&n_threads={n}")
                    self.using = n
                return send(count)
            return with_threads
        self.using = None
        return {f"{name}, {n} torch thread{'s' * (n > 1)}".lstrip(", "): run(n, request)
                for n in THREADS for name, request in requests.items()}

    def finish(self):
        pass

    def close(self):
        if self.server:
            self.server.close()


class HttpFloor:
    """The library that the daemon is built on: it receives the daemon's requests, byte for byte but for the
    path, and answers with as many bytes."""
    name = "HTTP library alone"

    def __init__(self, loader, gradd):
        self.loader, self.gradd, self.server = loader, gradd, None

    def variants(self, work):
        self.server = self.server or Server(program("floor_http"))
        request = self.gradd.request(work)
        _, size = self.loader.send(self.gradd.server.port, 1, 1, self.loader.file(request))
        method, _, rest = request.split(b" ", 2)
        return {"": self.loader.sender(self.server.port, work, b"%s /%d %s" % (method, size, rest))}

    def finish(self):
        pass

    def close(self):
        if self.server:
            self.server.close()
