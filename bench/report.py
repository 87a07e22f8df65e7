"""Results as tables in Markdown: printed, or put into docs/performance.md between the lines

    <!-- bench: NAME -->
    <!-- bench: end -->"""
import pathlib
import re
import statistics

import roofline

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "performance.md"
PEERS = {"core": "core", "torch": "PyTorch", "fastapi": "FastAPI", "blas": "BLAS", "http": "HTTP library"}


def table(header, rows, left=1):
    """The first `left` columns are texts. Nothing, if there are no rows."""
    if not rows:
        return ""
    lines = [header, ["---" if i < left else "---:" for i in range(len(header))], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def milliseconds(seconds):
    return "" if seconds is None else f"{seconds * 1e3:.3g}" if seconds < 0.1 else f"{seconds * 1e3:.0f}"


def times(ratio):
    return "" if ratio is None else f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"


def quartiles(entry):
    if len(entry["seconds"]) < 2:
        return ""
    low, _, high = statistics.quantiles(entry["seconds"], n=4)
    return f"{milliseconds(low)} to {milliseconds(high)}"


# --- tables -----------------------------------------------------------------------------------------

def machine(r):
    quick = ", quick" if r.data["quick"] else ""
    text = f"{r.data['date']}, {r.data['revision']}{quick}; {r.data['machine']}."
    if r.roof():
        products, memory, cache = (rate / 1e9 for rate in r.roof())
        text += (f" A product of large matrices: {products:.0f} GFLOP/s; a copy of memory: {memory:.0f} GB/s, "
                 f"read and written; within a cache {cache:.0f}.")
    return text



def steps(r):
    """The daemon's time; others' as a multiple of it."""
    rows = []
    for scenario in r.group("steps") + r.group("width"):
        name, gradd = scenario["name"], r.entry(scenario["name"], "gradd")
        seconds = r.seconds(name, "gradd")
        ratios = [times(r.ratio(name, peer, "gradd")) for peer in PEERS]
        rows.append([name, milliseconds(seconds), quartiles(gradd), f"{gradd['rows'] / seconds:,.0f}", *ratios])
    return table(["model, batch, pass", "gradd, ms", "quartiles", "samples/s", *PEERS.values()], rows)


def roof(r):
    rows = []
    for scenario in r.group("steps") + r.group("width") if r.roof() else []:
        name, gradd = scenario["name"], r.entry(scenario["name"], "gradd")
        shape = gradd["what"], [int(width) for width in gradd["layers"].split("-")], gradd["rows"]
        floor = roofline.floor(*shape, r.roof())
        measured = [r.seconds(name, who) for who in ("blas", "http", "core", "gradd")]
        blas, http, core, over_http = measured
        rows.append([name, f"{roofline.operations(*shape) / 1e6:,.1f}",
                     f"{roofline.bytes_moved(*shape) / 1e6:,.1f}", milliseconds(floor),
                     *map(milliseconds, measured), f"{floor / core:.0%}", f"{floor / over_http:.0%}",
                     f"{(blas + http) / over_http:.0%}" if http else ""])
    return table(["model, batch, pass", "MFLOP", "MB", "roof, ms", "BLAS, ms", "HTTP library, ms", "core, ms",
                  "gradd, ms", "roof/core", "roof/gradd", "(BLAS + HTTP)/gradd"], rows)


def entries(*groups):
    """Every entry of these groups; ratios to the first of each scenario."""
    def made(r):
        rows = []
        for scenario in (s for group in groups for s in r.group(group)):
            for entry in scenario["entries"]:
                seconds = statistics.median(entry["seconds"])
                latency = [milliseconds(statistics.median(entry[of])) if of in entry else ""
                           for of in ("median", "p99")]
                name = ", ".join(filter(None, (PEERS.get(entry["name"], entry["name"]), entry["variant"])))
                ratio = r.ratio(scenario["name"], entry["name"], scenario["entries"][0]["name"])
                rows.append([scenario["name"], name, milliseconds(seconds), quartiles(entry),
                             f"{1 / seconds:,.0f}", *latency, times(ratio)])
        return table(["", "who", "ms", "quartiles", "a second", "latency, ms", "p99, ms", "over the first"],
                     rows, left=2)
    return made


NUMBERS_IN, NUMBERS_OUT = 256 * 784, 669706


def json_costs(r):
    """(what, nanoseconds a number) in and out."""
    def each(seconds, n):
        return None if seconds is None else seconds / n * 1e9
    here = "200,704 numbers, in process"
    return {
        "read, in process": each(r.seconds(here, "read"), NUMBERS_IN),
        "read, over HTTP": each(r.difference("200,704 numbers in", "json", "safetensors"), NUMBERS_IN),
        "read, jansson": each(r.seconds(here, "jansson-read"), NUMBERS_IN),
        "written, in process": each(r.seconds(here, "write"), NUMBERS_IN),
        "written, over HTTP": each(r.difference("669,706 numbers out", "json", "safetensors"), NUMBERS_OUT),
        "written, jansson": each(r.seconds(here, "jansson-write"), NUMBERS_IN),
    }


def json_table(r):
    rows = [[name, f"{cost:.1f}"] for name, cost in json_costs(r).items() if cost is not None]
    return table(["a number in JSON", "ns"], rows)


def resident(r):
    m = r.data.get("memory")
    if not m:
        return ""
    rows = [[name, f"{m[key]:.1f}"] for name, key in (
        ("the daemon, empty", "empty"), ("after a few requests of each kind", "few"),
        (f"after {m['requests']:,} more", "after"),
        (f"{m['pause']} seconds later", "idle"), ("of that no file's", "idle_anonymous"),
        ("parameters", "parameters"), ("Adam's state", "state"), ("the largest step's plan", "plan"))]
    return table(["", "MB"], rows)


def excess(r):
    m = r.data.get("memory")
    return m["idle"] - m["parameters"] - m["state"] - m["plan"] if m else None


def recovery(r):
    m = r.data.get("recovery")
    if not m:
        return ""
    rows = []
    parts = [(f"{m['n']:,} steps that were journalled", "the steps", "steps", m["steps"])]
    size = f"a snapshot of {m['snapshot']['bytes'] / 1e6:.0f} MB"
    parts += [(f"{size}, {words}", peer, key, m["snapshot"][kind])
              for kind, words in (("cold", "from the disk"), ("warm", "from memory"))
              for key, peer in (("read", "a plain read that keeps nothing"), ("keep", "a plain read that keeps all"),
                                ("library", "safetensors in Python"))]
    for name, beside, key, rounds in parts:
        seconds = {what: statistics.median(took[what] for took in rounds) for what in ("empty", "start", key)}
        ratios = sorted((took["start"] - took["empty"]) / took[key] for took in rounds)
        rows.append([name, beside, *(milliseconds(seconds[what]) for what in (key, "start", "empty")),
                     times(statistics.median(ratios)), f"{times(ratios[0])} to {times(ratios[-1])}"])
    return table(["what is recovered", "beside", "that, ms", "start, ms", "empty start, ms", "over it",
                  "from, to"], rows, left=2)


# --- what was asked for -----------------------------------------------------------------------------

def targets(r):
    """(line, what, measured, whether at least or at most, target)"""
    for rows in (256, 2048):
        name = f"middle, {rows}, apply"
        yield 1, f"middle, {rows}, applied: rate by PyTorch's", r.ratio(name, "torch", "gradd"), ">=", 1.0
        yield 1, f"middle, {rows}, applied: rate by core's", r.ratio(name, "core", "gradd"), ">=", 0.9
    yield 2, "tiny, applied: time by PyTorch's", r.ratio("tiny, 64, apply", "gradd", "torch"), "<=", 1.0
    eight = r.ratio("tiny, 64, apply, 8 clients", "fastapi", "gradd")
    yield 2, "tiny, 8 clients: rate by FastAPI's", eight, ">=", 10
    for who in ("gradd", "core"):
        yield 3, f"wide, applied: rate by BLAS's, {who}", r.ratio("wide, 256, apply", "blas", who), ">=", 0.9
    returned = r.ratio("gradients returned", "gradd", "returned")
    yield 4, "gradients returned: rate by that of applied", returned, ">=", 0.75
    costs = json_costs(r)
    for way in ("in process", "over HTTP"):
        yield 5, f"JSON: ns a number read, {way}", costs[f"read, {way}"], "<=", 30
        yield 5, f"JSON: ns a number written, {way}", costs[f"written, {way}"], "<=", 50
    name = "64 clients, 1 row each, wide"
    yield 6, "coalesced: rate by that without", r.ratio(name, "alone", "coalesced"), ">=", 3
    yield 6, "coalesced: p99 by that without", r.ratio(name, "coalesced", "alone", "p99"), "<=", 1
    same = r.scenarios.get(name, {}).get("same_bytes", {}).get("coalesced")
    yield 6, "coalesced: answers that are a lone request's to the byte", same, ">=", 1
    for who in ("gradd", "core"):
        ratio = r.ratio("two threads over one", f"{who}, one thread", who)
        yield 7, f"two threads' rate by one's, {who}", ratio, ">=", 1.8
    for what in ("pull", "push"):
        ratio = r.ratio(f"{what} 10 million", "gradd", "http")
        yield 8, f"{what} of 10 million: time by the HTTP library's", ratio, "<=", 1.5
    without = r.without("push 10 million", "gradd", "a pass of SGD", "http")
    yield 8, "push of 10 million, a pass of SGD taken off: likewise", without, "<=", 1.5
    yield 9, "MB resident beyond what models and plan take", excess(r), "<=", 20


def recovered(r, part, one, other):
    """The median, over the rounds, of a time by another; an empty store's start is taken off starts."""
    m = r.data.get("recovery")
    rounds = [] if not m else m["steps"] if part == "steps" else m["snapshot"][part]
    return statistics.median((took[one] - took["empty"]) / took[other] for took in rounds) if rounds else None


def durability_targets(r):
    for clients in ("1 client", "8 clients"):
        rate = r.ratio(f"middle, 256, {clients}, stored", "none", "journal")
        yield 2, f"middle, 256, {clients}: rate of journal by that of none", rate, ">=", 0.5
    yield 3, "recovery of journalled steps: time by theirs", recovered(r, "steps", "start", "steps"), "<=", 1
    for key, reader in (("keep", "a plain read's that keeps all"), ("read", "one's that keeps nothing")):
        cold = recovered(r, "cold", "start", key)
        yield 3, f"recovery of a snapshot, from the disk: time by {reader}", cold, "<=", 1


def show(targets):
    """Of several runs, each one's; the median decides."""
    return lambda r: show_targets(targets, r)


def show_targets(targets, r):
    rows = []
    for runs in zip(*map(targets, r.runs)):
        line, what, _, sign, target = runs[0]
        measured = [run[2] for run in runs if run[2] is not None]
        reached = "not measured"
        if measured:
            middle = statistics.median(measured)
            reached = "yes" if (middle >= target if sign == ">=" else middle <= target) else "no"
        bound = f"{'at least' if sign == '>=' else 'at most'} {target:g}"
        rows.append([line, what, bound, ", ".join(f"{value:.2f}" for value in measured), reached])
    return table(["line", "what", "target", "measured", "reached"], rows, left=2)


# --- pages ------------------------------------------------------------------------------------------

SECTIONS = {
    "machine": (None, machine),
    "steps": ("Passes: the daemon's time, and others' as a multiple of it", steps),
    "roofline": ("Roofline", roof),
    "clients": ("Clients", entries("clients")),
    "moves": ("Parameters pulled and pushed", entries("moves")),
    "json": ("JSON", json_table),
    "optimizers": ("Optimizers", entries("optimizers")),
    "comparisons": ("Gradients returned; threads; coalescing", entries("returned", "threads", "coalescing")),
    "memory": ("Resident memory", resident),
    "show": ("What was asked for", show(targets)),
    "durability": ("Durability", entries("durability")),
    "recovery": ("Recovery", recovery),
    "durability-show": ("What was asked for of durability", show(durability_targets)),
}


def markdown(r):
    parts = []
    for title, make in SECTIONS.values():
        text = make(r)
        if text:
            parts += [f"## {title}", text] if title else [text]
    return "\n\n".join(parts) + "\n"


def publish(r, page=PAGE):
    """Replaces the page's tables with these."""
    text = page.read_text()
    for name, (_, make) in SECTIONS.items():
        pattern = rf"(<!-- bench: {name} -->\n).*?(<!-- bench: end -->\n)"
        text, n = re.subn(pattern, lambda m: f"{m[1]}{make(r)}\n{m[2]}", text, flags=re.S)
        if n != 1:
            raise SystemExit(f"{page}: no place for the table of {name}")
    page.write_text(text)
