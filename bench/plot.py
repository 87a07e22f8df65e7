"""Results as one picture of several panels."""
import statistics

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "gradd", "svg.fonttype": "none", "font.size": 9,
                            "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
from matplotlib import pyplot, ticker  # noqa: E402

import report  # noqa: E402

WHO = {"gradd": ("gradd, over HTTP", "#c0392b", "o"), "core": ("core, in process", "#e59866", "s"),
       "torch": ("PyTorch, in process", "#2471a3", "^"), "fastapi": ("PyTorch behind FastAPI", "#7fb3d5", "v"),
       "blas": ("BLAS alone", "#566573", "D"), "http": ("HTTP library alone", "#aeb6bf", "P")}


def curves(axes, r, points, value):
    """points: (x, scenario); a curve for each who is measured in two of them or more."""
    for who, (label, colour, marker) in WHO.items():
        found = [(x, value(r.entry(name, who))) for x, name in points if r.entry(name, who)]
        if len(found) > 1:
            axes.plot(*zip(*found), color=colour, marker=marker, markersize=4, linewidth=1.4, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([x for x, _ in points], [f"{x:,.0f}" for x, _ in points])
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:,g}")
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
    """Others' times by the daemon's, of every step."""
    scenarios = [s["name"] for s in r.group("steps") if s["name"].endswith("apply")]
    axes.axvline(1, color=WHO["gradd"][1], linewidth=1.4)
    for who, (_, colour, marker) in WHO.items():
        found = [(r.ratio(name, who, "gradd"), y) for y, name in enumerate(scenarios) if r.entry(name, who)]
        if found and who not in ("gradd", "http"):
            axes.plot(*zip(*found), marker, color=colour, markersize=6, alpha=0.9)
    axes.set_yticks(range(len(scenarios)), [name.removesuffix(", apply") for name in scenarios])
    axes.set_ylim(len(scenarios) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.minorticks_off()
    axes.grid(linewidth=0.3)
    axes.set_title("A step's time by that of gradd, for each model and batch")


def json_bars(axes, r):
    costs = {name: cost for name, cost in report.json_costs(r).items() if cost is not None}
    who = ["http" if "jansson" in name else "core" if "process" in name else "gradd" for name in costs]
    axes.barh(range(len(costs)), costs.values(), color=[WHO[name][1] for name in who])
    axes.set_yticks(range(len(costs)), costs)
    for y, cost in enumerate(costs.values()):
        axes.text(cost, y, f" {cost:.0f}", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_title("A number in JSON, ns")


def panels(r):
    """(what draws it, whether there is anything to draw)"""
    batches = [(n, f"middle, {n}, apply") for n in (1, 32, 256, 2048)]
    widths = [(n, f"{n}-{n}-{n}-10, 256, apply") for n in (64, 256, 1024, 2048)]
    clients = [(n, f"{{}}, apply, {n} client{'s' * (n > 1)}") for n in (1, 2, 8, 64)]
    moves = [(n * 1e6, f"{{}} {n:g} million") for n in (0.1, 1, 10)]

    def sweep(title, points, value):
        def draw(axes):
            curves(axes, r, points, value)
            axes.set_title(title)
        return draw, sum(r.entry(name, "gradd") is not None for _, name in points) > 1

    yield lambda axes: ratios(axes, r), bool(r.group("steps"))
    yield sweep("A step by batch: µs a sample (784-512-512-10)", batches, a_sample)
    yield sweep("A step by width: µs a sample (w-w-w-10, batch 256)", widths, a_sample)
    for model, layers in (("tiny, 64", "64-64-10, batch 64"), ("middle, 256", "784-512-512-10, batch 256")):
        points = [(n, name.format(model)) for n, name in clients]
        yield sweep(f"Steps a second by clients ({layers})", points, a_second)
    for what in ("pull", "push"):
        points = [(n, name.format(what)) for n, name in moves]
        yield sweep(f"A {what} by the numbers it moves: MB/s", points, megabytes)
    yield lambda axes: json_bars(axes, r), any(report.json_costs(r).values())


def draw(r, path):
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
    handles = [pyplot.Line2D([], [], color=colour, marker=marker, label=label)
               for label, colour, marker in WHO.values()]
    figure.legend(handles=handles, loc="upper center", ncol=3, fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.5 / figure.get_figheight()))
    figure.savefig(path, metadata={"Date": None} if str(path).endswith(".svg") else None, dpi=80)
    pyplot.close(figure)
