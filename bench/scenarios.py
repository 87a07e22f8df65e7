"""The scenarios: one row each. A scenario is a list of entries, which are measured in turn; an entry is who
does what. `quick` ones are those of the quick mode."""
import dataclasses

from peers import Work

TINY, MIDDLE, WIDE = "64-64-10", "784-512-512-10", "1024-4096-4096-1000"
DEEP = "-".join(["32"] * 100 + ["10"])  # 100 linear, 99 relu, a loss
PEAK = "2048-2048"                      # with 2048 rows, a product as large as matters
TEN_MILLION = "2499-4000"               # one linear layer: 2500 * 4000 numbers

# In the order in which they are measured. Who is not there for a scenario is left out of its row.
STEP = ("gradd", "core", "torch", "fastapi", "blas", "http")
SERVERS = ("gradd", "fastapi", "http")


@dataclasses.dataclass(frozen=True)
class Scenario:
    name: str
    group: str     # the table that it stands in
    entries: tuple  # of (entry's name, peer, Work); the first is what the others are compared with
    quick: bool = False
    same: tuple = ()  # entries whose answers in company are compared with those to lone requests


def of(name, group, peers, work, quick=False):
    return Scenario(name, group, tuple((peer, peer, work) for peer in peers), quick)


def steps():
    for model, layers, batches in (("tiny", TINY, [64]), ("middle", MIDDLE, [1, 32, 256, 2048]),
                                   ("wide", WIDE, [256]), ("deep", DEEP, [32])):
        for rows in batches:
            for what in ("forward", "gradients", "apply"):
                quick = what == "apply" and (model, rows) in (("tiny", 64), ("middle", 256), ("middle", 2048),
                                                              ("wide", 256))
                yield of(f"{model}, {rows}, {what}", "steps", STEP, Work(what, layers, rows), quick)


def widths():
    for width in (64, 256, 1024, 2048):
        layers = f"{width}-{width}-{width}-10"
        work = Work("apply", layers, 256)
        yield of(f"{layers}, 256, apply", "width", ("gradd", "core", "torch", "blas"), work)


def clients():
    for model, layers, rows in (("tiny", TINY, 64), ("middle", MIDDLE, 256)):
        for n in (1, 2, 8, 64):
            yield of(f"{model}, {rows}, apply, {n} client{'s' * (n > 1)}", "clients", SERVERS,
                     Work("apply", layers, rows, clients=n), quick=(model, n) == ("tiny", 8))


def moves():
    """Parameters in and out: 0.1, 1 and 10 million numbers."""
    for millions, layers in ((0.1, "249-400"), (1, "999-1000"), (10, TEN_MILLION)):
        for what in ("pull", "push"):
            work = Work(what, layers)
            entries = [(peer, peer, work) for peer in SERVERS]
            if what == "push":
                entries.append(("a pass of SGD", "core", Work("sgd", layers)))
            if millions == 10:
                entries.append(("a copy of the bytes", "blas", Work("copy", rows=38)))
            yield Scenario(f"{what} {millions:g} million", "moves", tuple(entries), quick=millions == 10)


def encodings():
    step = Work("apply", MIDDLE, 256)
    pull = Work("pull", MIDDLE)
    for name, work in (("200,704 numbers in", step), ("669,706 numbers out", pull)):
        text = dataclasses.replace(work, encoding="json")
        yield Scenario(name, "json", (("safetensors", "gradd", work), ("json", "gradd", text)), quick=True)
    array = Work("read", "784-784", 256)
    yield Scenario("200,704 numbers, in process", "json",
                   tuple((what, "json", dataclasses.replace(array, what=what))
                         for what in ("read", "jansson-read", "write", "jansson-write")), quick=True)


def optimizers():
    for name in ("sgd", "adam", "adamw", "rmsprop", "adagrad"):
        yield of(f"{name}, 10 million", "optimizers", ("core", "torch"), Work(name, TEN_MILLION),
                 quick=name in ("sgd", "adam"))


def comparisons():
    step = Work("apply", MIDDLE, 256)
    returned = dataclasses.replace(step, what="gradients")
    yield Scenario("gradients returned", "returned",
                   (("gradd", "gradd", step), ("returned", "gradd", returned)), quick=True)
    step = Work("apply", MIDDLE, 2048)
    yield Scenario("two threads over one", "threads",
                   (("gradd", "gradd", step), ("gradd, one thread", "gradd, one thread", step),
                    ("core", "core", step), ("core, one thread", "core, one thread", step)), quick=True)


def durability():
    """What a store costs: the same steps on models that are not stored, stored now and then, and journalled."""
    for model, layers, rows, clients in (("middle", MIDDLE, 256, 1), ("middle", MIDDLE, 256, 8),
                                         ("tiny", TINY, 64, 8)):
        work = Work("apply", layers, rows, clients=clients)
        entries = [(kind, "stored", dataclasses.replace(work, spec=(("durability", f'"{kind}"'),)))
                   for kind in ("none", "snapshot", "journal")]
        entries.append(("a bare disk", "disk", Work("write" if clients == 1 else "write-8", layers, rows)))
        yield Scenario(f"{model}, {rows}, {clients} client{'s' * (clients > 1)}, stored", "durability", tuple(entries),
                       quick=(model, clients) == ("middle", 1))


def coalescing(spec):
    """`spec`: the members of a model's specification that switch it on and off; None: the daemon has none."""
    work = Work("forward", WIDE, 1, clients=64)
    entries = [("alone", "gradd", dataclasses.replace(work, spec=spec["off"] if spec else ()))]
    if spec:
        entries.append(("coalesced", "gradd", dataclasses.replace(work, spec=spec["on"])))
    entries.append(("fastapi", "fastapi", work))
    yield Scenario("64 clients, 1 row each, wide", "coalescing", tuple(entries), quick=True,
                   same=("coalesced",))


def machine():
    yield Scenario("machine", "machine", (("peak", "blas", Work("forward", PEAK, 2048)),
                                          ("copy", "blas", Work("copy", rows=256)),
                                          ("copy in cache", "blas", Work("copy", rows=8))), quick=True)


def table(coalescing_spec):
    return [*machine(), *steps(), *widths(), *clients(), *moves(), *encodings(), *optimizers(), *comparisons(), *durability(),
            *coalescing(coalescing_spec)]
