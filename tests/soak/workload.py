"""What a client may do, one function a kind of call, and how often each is done."""

from __future__ import annotations

import json
import random
import threading
import time
from typing import Any, Callable

import gradd
import graphs
import hostile
from caller import Answer, Client, Gone, Tally
from ledger import Ledger, Model

GONE = ("not-found",)
# A model that others create, delete, restore and change meanwhile.
CHURN = ("not-found", "stale", "not-finite", "stopped", "no-optimizer", "invalid-value", "unknown-name",
         "shape-mismatch", "unknown-member", "not-in-a-round", "round-failed", "round-twice",
         "storage")  # fmt: skip


class World:
    """What all threads share."""

    def __init__(self, port: int, tally: Tally, tokens: dict[str, str], key_age: float) -> None:
        self.port, self.tally, self.tokens = port, tally, tokens
        self.ledger = Ledger(tally, key_age)
        self.up, self.stop = threading.Event(), threading.Event()
        self.fixed: dict[str, tuple[str, bytes]] = {}  # of a model, a forward that is the same each time

    def document(self, chance: random.Random, **members: Any) -> tuple[str, bytes]:
        return graphs.encode(chance, members, {})


class Went(Exception):
    """Between two looks at a model another worker has deleted it."""


class Worker(threading.Thread):
    def __init__(self, world: World, number: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.world, self.number = world, number
        self.chance = random.Random(f"{seed}-{number}")
        self.source = f"127.0.0.{2 + number % 5}"
        self.client = Client(world.port, world.tally, world.tokens["all"], self.source)
        self.own = [world.ledger.add(f"churn-{number}-{i}") for i in range(2)]

    def run(self) -> None:
        table = [(action, weight) for action, weight in ACTIONS.items()]
        actions, weights = [a for a, _ in table], [w for _, w in table]
        while not self.world.stop.is_set():
            self.world.up.wait(1)
            if not self.world.up.is_set():
                continue
            action = self.chance.choices(actions, weights)[0]
            try:
                action(self)
            except (Gone, OSError):
                self.world.tally.count("connections that ended before the answer")
            except Went:
                self.world.tally.count("models that were deleted before they were asked for")
            except Exception as wrong:  # noqa: BLE001: whatever it is, it is told, and the others go on
                where = wrong.__traceback__
                while where and where.tb_next:
                    where = where.tb_next
                self.world.tally.fault("harness", f"{action.__name__}: {wrong!r} at {where and where.tb_lineno}")
        self.client.close()

    # --- what the calls are made of ---

    def anchor(self, *but: str) -> Model:
        models = self.world.ledger.models.values()
        return self.chance.choice([m for m in models if m.anchor and m.name not in ("oracle", "team", *but)])

    def any(self) -> Model | None:
        if self.chance.random() < 0.5:
            return self.anchor()
        models = [m for m in self.world.ledger.models.values() if not m.anchor and m.there and m.graph]
        return self.chance.choice(models) if models else None

    def batch(self, model: Model, targets: bool = True, rows: int = 0) -> dict[str, gradd.Tensor]:
        graph = model.graph
        if graph is None:
            raise Went
        rows = rows or self.chance.choice((1, 1, 2, 5, 16, 64, 200))
        return graphs.batch(self.chance, graph, rows, targets)

    def refusals(self, model: Model, *more: str) -> tuple[str, ...]:
        return more if model.anchor else (*CHURN, *more)

    def change(
        self,
        kind: str,
        model: Model,
        method: str,
        path: str,
        body: tuple[str, bytes],
        *refusals: str,
        wait: bool = False,
    ) -> Answer | None:
        """A change, now and then with a key; then it is repeated until it is answered."""
        key = f"{self.chance.getrandbits(64):x}" if self.chance.random() < 0.3 else None
        answer: Answer | None = None
        for _ in range(50 if key else 1):
            try:
                answer = self.client.call(kind, method, path, body, *refusals, key=key)
            except Gone:
                if not key:
                    raise
                self.world.tally.count("keys sent again")
                answer = None
                if not self.world.up.wait(120) or self.world.stop.is_set():
                    return None
                continue
            if answer.status == 503 or answer.slug == "in-flight":
                time.sleep(0.02)
                continue
            break
        if not answer or not answer.ok:
            return None
        self.world.ledger.changed(model, answer, wait)
        if key and model.anchor:
            call = (kind, method, path, body, key)
            self.world.ledger.keyed(model, call, answer)
            if self.chance.random() < 0.2:
                again = self.client.call("replay", method, path, body, key=key)
                if again.ok and not Ledger.same(answer.members, again.members):
                    self.world.tally.fault("keys", f"{path}: {answer.body[:300]!r}, then {again.body[:300]!r}")
        return answer

    def members(self, model: Model, **more: Any) -> tuple[dict[str, Any], bool]:
        members = {"model": model.name, **more}
        wait = self.chance.random() < 0.05 and model.durability in ("journal", "snapshot")
        if wait:
            members["wait"] = "durable"
        return members, wait


# --- passes -------------------------------------------------------------------------------------------


def forward(w: Worker) -> None:
    model = w.any()
    if model and model.graph:
        body = graphs.encode(w.chance, {"model": model.name}, w.batch(model, targets=False))
        accept = w.chance.choice((graphs.JSON, graphs.FILE))
        w.client.call("forward", "POST", "/forward", body, *w.refusals(model), Accept=accept)


def probe(w: Worker) -> None:
    """The same forward each time: of the oracle, which coalesces and never changes; and of models that are trained."""
    name = w.chance.choice(("oracle", "oracle", *w.world.fixed))
    answer = w.client.call("probe", "POST", "/forward", w.world.fixed[name])
    if answer.ok:
        told = answer.members
        w.world.ledger.probed(w.world.ledger.models[name], told["version"], json.dumps(told["outputs"]).encode())


def coalesced(w: Worker) -> None:
    model = w.world.ledger.models["oracle"]
    body = graphs.encode(w.chance, {"model": model.name}, w.batch(model, False, w.chance.randint(1, 3)))
    w.client.call("coalesced", "POST", "/forward", body)


def gradients(w: Worker) -> None:
    model = w.any()
    if model and model.graph:
        wanted = w.chance.sample(("parameters", "inputs", "nodes", "outputs"), w.chance.randint(1, 4))
        body = graphs.encode(w.chance, {"model": model.name, "return": wanted}, w.batch(model))
        w.client.call("backward", "POST", "/backward", body, *w.refusals(model))


def train(w: Worker) -> None:
    model = w.any()
    if model and model.graph:
        members, wait = w.members(model, apply=True)
        body = graphs.encode(w.chance, members, w.batch(model))
        w.change("train", model, "POST", "/backward", body, *w.refusals(model), wait=wait)


def accumulate(w: Worker) -> None:
    model = w.any()
    if model and model.graph:
        members, wait = w.members(model, accumulate={"scale": w.chance.choice((1, 0.5, 3))})
        body = graphs.encode(w.chance, members, w.batch(model))
        w.change("accumulate", model, "POST", "/backward", body, *w.refusals(model), wait=wait)


def step(w: Worker) -> None:
    model = w.any()
    if model:
        members, wait = w.members(model, mean=True)
        body = w.world.document(w.chance, **members)
        w.change("step", model, "POST", "/step", body, *w.refusals(model, "nothing-accumulated"), wait=wait)


def stateless(w: Worker) -> None:
    graph = graphs.draw(w.chance)
    model = {k: v for k, v in graph.specification.items() if k != "optimizer"}
    body = graphs.encode(w.chance, {"model": model}, graphs.batch(w.chance, graph, 3))
    w.client.call("stateless", "POST", "/backward", body)


def context(w: Worker) -> None:
    model = w.any()
    if not model or not model.graph:
        return
    batch = w.batch(model)
    inputs = {path: t for path, t in batch.items() if path.startswith("inputs/")}
    targets = {path: t for path, t in batch.items() if path.startswith("targets/")}
    kept = w.client.call("retain", "POST", "/forward",
                         graphs.encode(w.chance, {"model": model.name, "retain": True}, inputs), *w.refusals(model))
    if not kept.ok:
        return
    identity = kept.members["context"]
    way = w.chance.randrange(4)
    if way == 0:
        return  # left to its time
    if way == 1:
        w.client.call("let go", "DELETE", f"/contexts/{identity}", None, *GONE)
        return
    apply = {"apply": True} if way == 2 else {}
    answer = w.client.call("use up", "POST", "/backward",
                           graphs.encode(w.chance, {"context": identity, **apply}, targets), *w.refusals(model, *GONE))
    if answer.ok:
        w.world.ledger.changed(model, answer)


# --- parameters ---------------------------------------------------------------------------------------


def pull(w: Worker) -> None:
    model = w.any()
    if model:
        path = f"/models/{model.name}/parameters"
        accept = w.chance.choice((graphs.JSON, graphs.FILE))
        answer = w.client.call("pull", "GET", path, None, *w.refusals(model), Accept=accept)
        if answer.status == 200:
            w.client.call("pull again", "GET", path, None, *w.refusals(model), Accept=accept,
                          If_None_Match=answer.headers["ETag"])


def push(w: Worker) -> None:
    model = w.any()
    if not model or not model.graph:
        return
    got = w.client.call("gradient", "POST", "/backward",
                        graphs.encode(w.chance, {"model": model.name}, w.batch(model)), *w.refusals(model),
                        Accept=graphs.FILE)
    if got.ok:
        w.change("push", model, "POST", f"/models/{model.name}/gradients", (graphs.FILE, got.body),
                 *w.refusals(model, "stale"))


def blend(w: Worker) -> None:
    into, source = w.chance.sample(("journal-0", "twin"), 2)
    model = w.world.ledger.models[into]
    body = w.world.document(w.chance, **{"from": source, "tau": 0.01})
    w.change("blend", model, "POST", f"/models/{into}/parameters", body)


def put(w: Worker) -> None:
    model = w.any()
    if not model:
        return
    path = f"/models/{model.name}/parameters"
    got = w.client.call("pull", "GET", path, None, *w.refusals(model), Accept=graphs.FILE)
    if got.ok:
        w.change("put", model, "PUT", path, (graphs.FILE, got.body), *w.refusals(model))


def optimizer(w: Worker) -> None:
    model = w.any()
    if not model:
        return
    path = f"/models/{model.name}/optimizer"
    got = w.client.call("optimizer", "GET", path, None, *w.refusals(model), Accept=graphs.FILE)
    if got.ok and w.chance.random() < 0.5:
        w.change("put optimizer", model, "PUT", path, (graphs.FILE, got.body), *w.refusals(model))


def clear(w: Worker) -> None:
    model = w.any()
    if model:
        path = f"/models/{model.name}/gradients"
        w.client.call("buffer", "GET", path, None, *w.refusals(model, "nothing-accumulated"))
        if w.chance.random() < 0.2:
            w.client.call("clear", "DELETE", path, None, *w.refusals(model))


# --- rounds, and what only looks ----------------------------------------------------------------------


def contribute(w: Worker) -> None:
    """To a round of three, of which two are enough. Some workers die: nobody reads their answer."""
    model = w.world.ledger.models["team"]
    body = graphs.encode(w.chance, {"model": "team", "apply": True, "worker": f"w{w.chance.randrange(4)}"},
                         w.batch(model, rows=4))
    if w.chance.random() < 0.2:
        with hostile.connect(w.world.port, w.source) as peer:
            peer.sendall(hostile.head("POST", "/backward", w.client.token, len(body[1]), body[0]) + body[1])
            time.sleep(0.01)
        w.world.tally.answered("die in a round", "sent")
        return
    answer = w.client.call("round", "POST", "/backward", body, "round-failed", "round-twice", "stale")
    if answer.ok:
        w.world.ledger.changed(model, answer, shared=True)


def look(w: Worker) -> None:
    model = w.any()
    name = model.name if model else "nobody"
    path = w.chance.choice(("/models", f"/models/{name}", "/contexts", "/ops", "/metrics", "/healthz", "/readyz"))
    w.client.call(f"GET {path.replace(name, '{}')}", "GET", path, None, *GONE)


def strange(w: Worker) -> None:
    """Requests that the token, or the request itself, rules out."""
    model = w.anchor()
    body = graphs.encode(w.chance, {"model": model.name, "apply": True}, w.batch(model))
    way = w.chance.randrange(5)
    tokens = w.world.tokens
    if way == 0:
        answer = w.client.call("no token", "POST", "/backward", body, "unauthorized", token="")
    elif way == 1:
        answer = w.client.call("reader trains", "POST", "/backward", body, "insufficient-scope", token=tokens["read"])
    elif way == 2:
        answer = w.client.call("other prefix", "POST", "/backward", body, "not-found", token=tokens["churn"])
    elif way == 3:
        wrong = w.world.document(w.chance, model=model.name, inputs={"x": [[1], [2, 3]]}, modle=1)
        answer = w.client.call("wrong", "POST", "/backward", wrong, "unknown-member", "shape-mismatch",
                               "unknown-name", "dtype-mismatch", "invalid-value")
    else:
        text = (graphs.JSON, body[1][: w.chance.randrange(len(body[1]))])
        answer = w.client.call("cut short", "POST", "/backward", text, "malformed", "invalid-value")
    if answer.ok:
        w.world.tally.fault("answers", f"{body[1][:200]!r} was not to be answered with success")


def attack(w: Worker) -> None:
    model = w.chance.choice([m for m in w.world.ledger.models.values() if not m.anchor])
    graph = model.graph or graphs.draw(w.chance)
    members: dict[str, Any] = {"model": model.name, "apply": True}
    path = "/backward"
    if w.chance.random() < 0.3:
        path, members = "/models", {**graph.specification, "name": model.name + "-odd", "durability": "none"}
    body = graphs.encode(w.chance, members, {} if path == "/models" else graphs.batch(w.chance, graph, 3))[1]
    way = w.chance.choice(hostile.WAYS)
    try:
        with hostile.connect(w.world.port, w.source) as peer:
            way(peer, w.chance, w.world.tokens["churn"] if path == "/models" else w.client.token, path, body)
    except OSError:
        pass  # refused, closed or reset: all is well as long as nobody else notices
    except AssertionError as wrong:
        w.world.tally.fault("answers", str(wrong))
    w.world.tally.answered(f"hostile: {way.__name__}", "sent")


# --- models come and go: each is created, changed and deleted by one thread alone ---------------------


def decide(model: Model, what: str, act: Callable[[], Answer]) -> None:
    """Until it is answered, nobody knows what is there."""
    model.known = False
    model.note(what)
    answer = act()
    model.note(f"{answer.status} {answer.members.get('incarnation', '')}")
    model.known = True


def come_and_go(w: Worker) -> None:
    model = w.chance.choice(w.own)
    if not model.known:  # an answer was lost: look
        answer = w.client.call("describe", "GET", f"/models/{model.name}", None, *GONE)
        if answer.status == 404:
            model.forget()
        elif answer.ok:
            model.known = True
            delete(w, model)
        return
    if not model.there:
        create(w, model)
        return
    w.chance.choices((patch, restore, delete), (4, 3, 2))[0](w, model)


def create(w: Worker, model: Model) -> None:
    graph = graphs.draw(w.chance, optimizer=False)
    durability = w.chance.choice(("journal", "snapshot", "none"))
    extra = {"coalesce": True} if w.chance.random() < 0.2 else {}
    document = {**graph.specification, **extra, "name": model.name, "durability": durability}

    def act() -> Answer:
        answer = w.client.call("create", "POST", "/models", w.world.document(w.chance, **document))
        if answer.ok:
            model.born(graph, durability, answer)
        return answer

    decide(model, f"create {durability}", act)


def patch(w: Worker, model: Model) -> None:
    change = w.chance.choice((
        {"optimizer": {"lr": 0.005}}, {"max_staleness": 4}, {"max_staleness": None}, {"durability": "journal"},
        {"durability": "snapshot"}, {"durability": "none"}, {"coalesce": True}, {"coalesce": False},
        {"aggregation": {"mode": "sync", "workers": 2, "timeout_ms": 200}}, {"aggregation": {"mode": "async"}},
    ))  # fmt: skip

    def act() -> Answer:
        answer = w.client.call("patch", "PATCH", f"/models/{model.name}", w.world.document(w.chance, **change),
                               "invalid-value")
        if answer.ok and "durability" in change:
            with model.lock:
                model.durability = change["durability"]
                model.durable = {}
        return answer

    decide(model, f"patch {change}", act)


def restore(w: Worker, model: Model) -> None:
    told = w.client.call("describe", "GET", f"/models/{model.name}")
    if not told.ok:
        return
    stored = told.members["snapshots"]
    which = {"version": w.chance.choice(stored)["version"]} if stored and w.chance.random() < 0.7 else {}

    def act() -> Answer:
        answer = w.client.call("restore", "POST", f"/models/{model.name}/restore", w.world.document(w.chance, **which),
                               *GONE, "stale")
        if answer.ok:
            with model.lock:
                model.incarnation = answer.members["incarnation"]
                model.durable = {}
        return answer

    decide(model, f"restore {which}", act)


def delete(w: Worker, model: Model) -> None:
    def act() -> Answer:
        answer = w.client.call("delete", "DELETE", f"/models/{model.name}")
        if answer.ok:
            with model.lock:
                model.forget()
        return answer

    decide(model, "delete", act)


ACTIONS: dict[Callable[[Worker], None], int] = {
    forward: 8, probe: 8, coalesced: 8, gradients: 6, train: 16, accumulate: 6, step: 4, stateless: 2, context: 5,
    pull: 5, push: 6, blend: 2, put: 3, optimizer: 3, clear: 2, contribute: 6, look: 4, strange: 3, attack: 8,
    come_and_go: 8,
}  # fmt: skip
