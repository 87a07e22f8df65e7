"""How long a start takes that has to recover: steps that were journalled, and a snapshot. An empty store's start is
taken off each."""
import dataclasses
import json
import mmap
import os
import subprocess
import tempfile
import time

import safetensors.numpy

import peers
import wire
from peers import Work
from scenarios import MIDDLE, TEN_MILLION

STEPS = 1000
STEP = Work("apply", MIDDLE, 256, spec=(("durability", '"journal"'),))
LARGE = Work("apply", TEN_MILLION, spec=(("durability", '"snapshot"'),
                                         ("optimizer", '{"op": "adam", "lr": 1e-5}')))
NO_CHECKPOINT = ("--checkpoint-interval", "24h", "--journal-size", "1T")


class Recovering(peers.Gradd):
    stderr = subprocess.DEVNULL  # it tells what it has recovered

    def __init__(self, loader, folder):
        super().__init__(loader, flags=("--data", folder, *NO_CHECKPOINT))


def started(loader, folder):
    """(a daemon that is ready, how long it took to be)"""
    gradd = Recovering(loader, folder)
    begun = time.monotonic()
    gradd.start()
    return gradd, time.monotonic() - begun


def empty_start(loader):
    with tempfile.TemporaryDirectory(dir=peers.BUILD) as folder:
        gradd, seconds = started(loader, folder)
        gradd.close()
    return seconds


def version(gradd):
    return json.loads(wire.call(gradd.server.port, "GET", "/models/bench-0"))["version"]


def steps(loader):
    """{steps, start, empty: seconds}, of steps that a killed daemon had journalled"""
    with tempfile.TemporaryDirectory(dir=peers.BUILD) as folder:
        gradd, _ = started(loader, folder)
        try:
            send = gradd.variants(STEP)[""]
            send(20)
            before = version(gradd)
            took = send(STEPS).seconds
            made = version(gradd)
            gradd.server.process.kill()
            gradd.close()
            gradd, start = started(loader, folder)
            if version(gradd) != made:
                raise peers.Failed(f"version {made} came back as {version(gradd)}")
        finally:
            gradd.close()
    # All that is there is replayed: also the few by which the server was warmed.
    return {"steps": took * made / (made - before), "start": start, "empty": empty_start(loader)}


# --- a snapshot -------------------------------------------------------------------------------------

def read(paths):
    """How long a plain read takes, into one buffer."""
    buffer = bytearray(1 << 20)
    begun = time.monotonic()
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.monotonic() - begun


def keep(paths):
    """How long it takes into memory of its own, of which no page was touched before: as who loads it must."""
    begun = time.monotonic()
    for path in paths:
        memory = memoryview(mmap.mmap(-1, os.path.getsize(path)))
        with open(path, "rb", buffering=0) as file:
            at = 0
            while at < len(memory):
                at += file.readinto(memory[at:at + (1 << 18)])
    return time.monotonic() - begun


def library(paths):
    """How long safetensors' own reader takes, into numpy's arrays."""
    begun = time.monotonic()
    for path in paths:
        safetensors.numpy.load_file(path)
    return time.monotonic() - begun


READERS = {"read": read, "keep": keep, "library": library}


def forget(paths):
    """Drops what the machine's memory still has of these files, which are on the disk."""
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def snapshots(folder):
    return [entry.path for entry in os.scandir(folder) if entry.name.startswith("snapshot-")]


def snapshot(loader, rounds):
    """{bytes, cold and warm: [{start, empty, and of each reader: seconds}]}, of a snapshot with Adam's state. Cold:
    the machine's memory has nothing of the files."""
    result = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory(dir=peers.BUILD) as folder:
        gradd, _ = started(loader, folder)
        try:
            gradd.variants(LARGE)[""](1)
            made = version(gradd)
        finally:
            gradd.close()
        for _ in range(rounds):
            for kind in result:
                took = {"empty": empty_start(loader)}
                for name, reader in READERS.items():
                    if kind == "cold":
                        forget(snapshots(folder))
                    took[name] = reader(snapshots(folder))
                if kind == "cold":
                    forget(snapshots(folder))
                gradd, took["start"] = started(loader, folder)
                try:
                    if version(gradd) != made:
                        raise peers.Failed(f"version {made} came back as {version(gradd)}")
                finally:
                    gradd.close()
                result[kind].append(took)
        result["bytes"] = sum(os.path.getsize(path) for path in snapshots(folder))
    return result


def measure(loader, of_steps, of_snapshots):
    """So many rounds of each."""
    return {"n": STEPS, "steps": [steps(loader) for _ in range(of_steps)],
            "snapshot": snapshot(loader, of_snapshots)}
