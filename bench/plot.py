"""Results as one picture of several panels."""
import statistics

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "gradd", "svg.fonttype": "none", "font.size": 9,
                            "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
import matplotlib.pyplot as pyplot  # noqa: E402

import report  # noqa: E402
from results import Results  # noqa: E402

WHO = {"gradd": ("gradd, over HTTP", "#c0392b", "o"), "core": ("core, in process", "#e59866", "s"),
       "torch": ("PyTorch, in process", "#2471a3", "^"), "fastapi": ("PyTorch behind FastAPI", "#7fb3d5", "v"),
       "blas": ("BLAS alone", "#566573", "D"), "http": ("HTTP library alone", "#aeb6bf", "P")}


def curves(axes, r, points, value):
    """points: (x, scenario); a curve for each who is measured in two of them or more."""
    for who, (label, colour, marker) in WHO.items():
        found = [(x, value(r.entry(name, who))) for x, name in points if r.entry(name, who)]
        if len(found) > 1:
            axes.plot(*zip(*found), color=colour, marker=marker, markersize=4, linewidth=1.4, label=label)
    axes.set_xscale("log", base=2 if max(x for x, _ in points) < 1e5 else 10)
    axes.set_yscale("log")
    axes.set_xticks([x for x, _ in points], [f"{x:,g}" for x, _ in points], minor=False)
    axes.minorticks_off()
    axes.grid(axis="y", linewidth=0.3)


def a_sample(entry):
    return statistics.median(entry["seconds"]) / entry["rows"] * 1e6


def a_second(entry):
    return 1 / statistics.median(entry["seconds"])


def megabytes(entry):
    first, second = (int(width) for width in entry["layers"].split("-"))
    return 4e-6 * (first + 1) * second / statistics.median(entry["seconds"])


def ratios(axes, r):
    """Rates by the daemon's, of every step."""
    scenarios = [s["name"] for s in r.group("steps") if s["name"].endswith("apply")]
    shown = [who for who in WHO if who not in ("gradd", "http")]
    height = 0.8 / len(shown)
    for i, who in enumerate(shown):
        found = [(y, r.ratio(name, who, "gradd")) for y, name in enumerate(scenarios) if r.entry(name, who)]
        axes.barh([y + (i - 1.5) * height for y, _ in found], [x for _, x in found], height, color=WHO[who][1])
    axes.axvline(1, color=WHO["gradd"][1], linewidth=1.4)
    axes.set_yticks(range(len(scenarios)), [name.removesuffix(", apply") for name in scenarios])
    axes.invert_yaxis()
    axes.set_xscale("log", base=2)
    ticks = [0.25, 0.5, 1, 2, 4, 8]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_title("A step's time over gradd's, by model and batch")


def json_bars(axes, r):
    costs = {name: cost for name, cost in report.json_costs(r).items() if cost is not None}
    colours = [WHO["http" if "jansson" in name else "core" if "process" in name else "gradd"][1] for name in costs]
    axes.barh(range(len(costs)), costs.values(), color=colours)
    axes.set_yticks(range(len(costs)), costs)
    for y, cost in enumerate(costs.values()):
        axes.text(cost, y, f" {cost:.0f}", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_title("A number in JSON, ns")


def panels(r):
    """(what draws it, whether there is anything to draw)"""
    batches = [(n, f"middle, {n}, apply") for n in (1, 32, 256, 2048)]
    widths = [(n, f"{n}-{n}-{n}-10, 256, apply") for n in (64, 256, 1024, 2048)]
    clients = [(n, f"tiny, 64, apply, {n} client{'s' * (n > 1)}") for n in (1, 2, 8, 64)]
    moves = [(n * 1e6, f"{{}} {n:g} million") for n in (0.1, 1, 10)]

    def sweep(title, points, value):
        def draw(axes):
            curves(axes, r, points, value)
            axes.set_title(title)
        return draw, sum(r.entry(name, "gradd") is not None for _, name in points) > 1

    yield lambda axes: ratios(axes, r), bool(r.group("steps"))
    yield sweep("A step by batch: µs a sample (784-512-512-10)", batches, a_sample)
    yield sweep("A step by width: µs a sample (w-w-w-10, batch 256)", widths, a_sample)
    yield sweep("Steps a second by clients (64-64-10, batch 64)", clients, a_second)
    for what in ("pull", "push"):
        yield sweep(f"A {what} by numbers: MB/s", [(n, name.format(what)) for n, name in moves], megabytes)
    yield lambda axes: json_bars(axes, r), any(report.json_costs(r).values())


def draw(data, path):
    r = Results(data)
    drawn = [panel for panel, worth in panels(r) if worth]
    if not drawn:
        return
    columns = min(2, len(drawn))
    rows = -(-len(drawn) // columns)
    figure, grid = pyplot.subplots(rows, columns, figsize=(5.2 * columns, 3.1 * rows + 0.5), squeeze=False)
    for axes in grid.flat[len(drawn):]:
        axes.axis("off")
    for axes, panel in zip(grid.flat, drawn):
        panel(axes)
        axes.title.set_fontsize(9)
    handles = [pyplot.Line2D([], [], color=colour, marker=marker, label=label) for label, colour, marker in WHO.values()]
    figure.legend(handles=handles, loc="upper center", ncol=3, fontsize=9)
    figure.suptitle(" ")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
