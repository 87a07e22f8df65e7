"""What the daemon has promised, and whether it was kept over a start."""

from __future__ import annotations

import collections
import hashlib
import threading
import time
from typing import Any

import graphs
from caller import Answer, Client, Tally

class Model:
    """One name. `known`: whether it is there is certain, as no request that changes this is on its way.
    `anchor`: it is never deleted nor restored, and all that is sent to it is right."""

    def __init__(self, name: str, anchor: bool = False) -> None:
        self.name, self.anchor = name, anchor
        self.lock = threading.Lock()
        self.history: collections.deque[str] = collections.deque(maxlen=8)
        self.forget()

    def note(self, text: str) -> None:
        self.history.append(f"{time.monotonic():.2f} {text}")

    def forget(self) -> None:
        self.graph: graphs.Graph | None = None
        self.durability = ""
        self.known, self.there = True, False
        self.incarnation = ""
        self.durable: dict[str, int] = {}  # by incarnation
        self.applied: dict[tuple[str, int], bool] = {}
        self.seen = 0  # the highest version
        self.numbers: dict[int, str] = {}  # of a fixed input, by version

    def born(self, graph: graphs.Graph, durability: str, answer: Answer) -> None:
        with self.lock:
            self.forget()
            self.graph, self.durability, self.there = graph, durability, True
            self.incarnation = answer.members["incarnation"]

    def floor(self) -> int:
        return self.durable.get(self.incarnation, -1)


class Ledger:
    """`key_age`: for how many seconds a key is held to be remembered, well below --key-ttl."""

    def __init__(self, tally: Tally, key_age: float) -> None:
        self.tally, self.key_age = tally, key_age
        self.models: dict[str, Model] = {}
        self.keys: collections.deque[tuple[float, Model, tuple[Any, ...], Answer]] = collections.deque(maxlen=400)

    def add(self, name: str, anchor: bool = False) -> Model:
        self.models[name] = Model(name, anchor)
        return self.models[name]

    # --- while it runs ---

    def changed(self, model: Model, answer: Answer, waited: bool = False, shared: bool = False) -> None:
        """`shared`: a version that others contributed to as well."""
        told = answer.members
        durable, applied = told.get("durable_version"), told.get("applied_version")
        with model.lock:
            if durable is not None:
                own = model.durable
                own[told["incarnation"]] = max(own.get(told["incarnation"], -1), durable)
            if applied is None:
                return
            model.seen = max(model.seen, applied)
            if not model.anchor or told.get("replayed"):
                return
            if (waited or model.durability == "journal") and (durable is None or durable < applied):
                self.tally.fault("durable", f"{model.name} was answered before it was durable: {told}")
            place = ("" if model.durability == "journal" else told["incarnation"], applied)
            if place in model.applied and not shared:
                self.tally.fault("versions", f"{model.name} answered version {applied} to two changes")
            model.applied[place] = True
            if len(model.applied) > 20000:
                model.applied.pop(next(iter(model.applied)))

    def probed(self, model: Model, version: int, outputs: bytes) -> None:
        """The outputs of a fixed input are those of a version, in any company."""
        digest = hashlib.sha256(outputs).hexdigest()
        with model.lock:
            before = model.numbers.get(version)
            model.numbers[version] = digest
            if len(model.numbers) > 5000:
                model.numbers.pop(next(iter(model.numbers)))
        if before:
            self.tally.count("numbers compared")
        if before not in (None, digest):
            self.tally.fault("numbers", f"{model.name} at version {version} answered two outputs")

    def keyed(self, model: Model, call: tuple[Any, ...], answer: Answer) -> None:
        self.keys.append((time.monotonic(), model, call, answer))

    @staticmethod
    def same(first: dict[str, Any], again: dict[str, Any]) -> bool:
        """Whether this is the answer to a repetition: all of the first but its tensors."""
        kept = {k: v for k, v in again.items() if k != "replayed"}
        return again.get("replayed") is True and all(first.get(k) == v for k, v in kept.items())

    # --- after a start, while nobody else calls ---

    def check(self, client: Client, clean: bool) -> None:
        for model in self.models.values():
            with model.lock:
                self._check_model(client, model, clean)
        for when, model, call, answer in list(self.keys):
            if time.monotonic() - when > self.key_age or not (clean or model.durability == "journal"):
                continue
            again = client.call("replay after a start", *call[1:4], key=call[4])
            self.tally.count("keys replayed after a start")
            if not again.ok or not self.same(answer.members, again.members):
                self.tally.fault("keys", f"{call[1]}: {answer.body[:300]!r} became {again.body[:300]!r}")
        self.keys.clear()

    def _broken(self, sort: str, model: Model, text: str) -> None:
        self.tally.fault(sort, f"{model.name} {text}; {model.durability}, {list(model.history)}")

    def _check_model(self, client: Client, model: Model, clean: bool) -> None:
        answer = client.call("after a start", "GET", f"/models/{model.name}", None, "not-found")
        if not answer.ok:
            if model.known and model.there and model.durability != "none":
                self._broken("models", model, "is gone")
            model.forget()
            return
        told = answer.members
        if model.known and model.durability == "none":
            self._broken("models", model, "was not to be stored, and is there")
        if model.known and not model.there:
            self._broken("models", model, "was deleted, and is there")
        if model.known and told["version"] < model.floor():
            self._broken("durable", model, f"was durable at version {model.floor()}, and is at {told['version']}")
        if model.anchor and clean and told["version"] < model.seen:
            self._broken("models", model, f"was at version {model.seen} at a clean stop, and is at {told['version']}")
        if model.known and (told["incarnation"] == model.incarnation) != clean:
            self._broken("incarnations", model, f"was {model.incarnation}, and is {told['incarnation']}")
        self.tally.count("models checked after a start")
        model.note(f"recovered, {told['version']} {told['incarnation']}")
        if not clean:  # what nobody was told to be durable may come again with other numbers
            kept = model.floor() if model.durability == "journal" else -1
            model.numbers = {v: digest for v, digest in model.numbers.items() if v <= kept}
        model.known, model.there, model.incarnation = True, True, told["incarnation"]
        model.seen = told["version"]
        model.durable = {told["incarnation"]: told["durable_version"] or 0}
        if model.graph is None:  # made by a request whose answer was lost: its owner is to look
            model.known = model.there = False
