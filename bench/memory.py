"""What stays resident after many requests of every kind, beyond what the models hold."""
import subprocess
import time

import peers
import wire
from peers import Work
from scenarios import MIDDLE, TINY

CLIENTS = 8
ADAM = (("optimizer", '{"op": "adam", "lr": 1e-5}'),)
MIXED = [Work(what, layers, rows, CLIENTS, encoding, ADAM)
         for layers, rows in ((TINY, 64), (MIDDLE, 32), (MIDDLE, 256))
         for what in ("forward", "gradients", "apply")
         for encoding in ("safetensors", "json") if rows < 256 or encoding == "safetensors"]
MIXED += [Work(what, layers, 1, CLIENTS, "safetensors", ADAM)
          for layers in (TINY, MIDDLE) for what in ("pull", "push")]
MIXED += [Work("pull", TINY, 1, CLIENTS, "json", ADAM)]


def resident(process):
    """Megabytes: all, and of that what is no file's."""
    lines = dict(line.split(":", 1) for line in open(f"/proc/{process.pid}/status"))
    return tuple(int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon"))


def parameters(layers):
    return sum(tensor.nbytes for tensor in wire.weights(layers).values()) / 2**20


def plan(layers, rows):
    """Megabytes of a training step's plans."""
    command = [peers.program("core"), "plan", str(rows), layers]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 2**20


def measure(loader, count, pause):
    """Right behind `count` requests, and again when the daemon has had nothing to do for `pause` seconds, in
    which its allocator may give back what it had kept for the next one."""
    gradd = peers.Gradd(loader)
    try:
        gradd.start()
        empty = resident(gradd.server.process)
        files = [loader.file(gradd.request(work)) for work in MIXED]
        few = None
        for n in (len(MIXED) * CLIENTS, count):
            loader.send(gradd.server.port, CLIENTS, n, *files)
            few, after = few or resident(gradd.server.process), resident(gradd.server.process)
        time.sleep(pause)
        idle = resident(gradd.server.process)
    finally:
        gradd.close()
    held = parameters(TINY) + parameters(MIDDLE)
    return {"requests": count, "empty": empty[0], "few": few[0], "after": after[0], "idle": idle[0],
            "idle_anonymous": idle[1], "pause": pause, "parameters": held, "state": 2 * held,
            "plan": plan(MIDDLE, 256)}
