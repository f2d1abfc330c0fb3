"""The figures as a picture: a row of panels per workload, the servers beside each other. Computes no figures."""

from pathlib import Path
from typing import TYPE_CHECKING

from tools.bench import figures
from tools.bench.canvas import COLOURS, GREY, canvas
from tools.bench.figures import Row
from tools.bench.limit import WORKLOAD as LIMITED
from tools.bench.report import Report
from tools.bench.workloads import WORKLOADS, Round

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW_INCHES = 3.1


def draw(report: Report, path: Path) -> None:
    """Write the picture; the file's ending says how (.svg, .png, .pdf). Raises PictureFailed."""
    machine = report.machine
    title = f"{machine.processor}, {machine.cores} cores, {machine.memory_bytes / 2**30:.0f} GiB, {report.date[:10]}"
    with canvas(path, report.date, (11, 0.7 + ROW_INCHES * len(report.rounds)), title) as picture:
        from matplotlib.patches import Patch

        patches = [Patch(color=colour, label=name) for name, colour in zip(report.servers, COLOURS, strict=False)]
        picture.legend(handles=patches, loc="outside upper right", ncols=len(patches), frameon=False)
        limit = figures.limit_row(report)["tokens/s"]
        rows = picture.subfigures(len(report.rounds), 1, squeeze=False)[:, 0]
        for row, (workload, servers) in zip(rows, report.rounds.items(), strict=True):
            row.suptitle(f"{workload}: {WORKLOADS[workload].__doc__}", fontsize=9.5, x=0.01, ha="left", fontweight="bold", wrap=True)
            panels = PANELS.get(workload, _throughput)
            panels(list(row.subplots(1, 3)), servers, limit if workload == LIMITED else None)


def _throughput(axes: "list[Axes]", servers: dict[str, list[Round]], limit: float | None) -> None:
    rows = {name: figures.throughput(rounds) for name, rounds in servers.items()}
    speed, first, gap = axes
    _bars(speed, "Output", "tokens/s", {name: {"": row["tokens/s"]} for name, row in rows.items()})
    if limit is not None:
        speed.axhline(limit, color=GREY, linestyle="--", linewidth=1)
        speed.annotate(
            f"limit (llama-batched-bench) {limit:.0f}",
            (0.99, limit),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            color=GREY,
        )
        speed.set_ylim(top=1.25 * max(limit, speed.get_ylim()[1] / 1.18))
    _bars(first, "Time to first token", "ms", {name: _shares(row, "first token") for name, row in rows.items()})
    _bars(gap, "Time between tokens", "ms", {name: _shares(row, "gap") for name, row in rows.items()})


def _shares(row: Row, quantity: str) -> Row:
    return {f"p{share}": row[f"{quantity} p{share}"] for share in figures.SHARES}


def _conversation(axes: "list[Axes]", servers: dict[str, list[Round]], limit: float | None) -> None:
    turns = {name: figures.conversation(rounds) for name, rounds in servers.items()}
    longest = max(turns.values(), key=len)
    for axis, title, unit, key, bound, meaning in (
        (axes[0], "Prompt tokens computed", "tokens", "prefilled", "new", "new in this turn"),
        (axes[1], "Prompt tokens reused", "tokens", "cached", "prompt", "whole prompt"),
        (axes[2], "Time to first token", "ms", "first token", "", ""),
    ):
        for rows, colour in zip(turns.values(), COLOURS, strict=False):
            axis.plot(_numbers(rows), _values(rows, key), marker="o", markersize=3, linewidth=1.4, color=colour)
        if bound:
            axis.plot(_numbers(longest), _values(longest, bound), color=GREY, linestyle="--", linewidth=1, label=meaning)
            axis.legend(frameon=False, fontsize=8)
        _label(axis, title, unit)
        axis.set_xlabel("turn")
        axis.set_xticks([1, *range(5, len(longest) + 1, 5)])


def _numbers(turns: list[Row]) -> range:
    return range(1, len(turns) + 1)


def _values(turns: list[Row], key: str) -> list[float]:
    return [float("nan") if (value := turn[key]) is None else value for turn in turns]


def _intrusion(axes: "list[Axes]", servers: dict[str, list[Round]], limit: float | None) -> None:
    rows = {name: figures.intrusion(rounds) for name, rounds in servers.items()}
    for axis, share in zip(axes, (50, 99), strict=False):
        pairs = {name: {when: row[f"{when} p{share}"] for when in ("without it", "with it")} for name, row in rows.items()}
        _bars(axis, f"Time between tokens of the 8, p{share}", "ms", pairs)
    _bars(axes[2], "Long prompt's time to first token", "ms", {name: {"": row["its first token"]} for name, row in rows.items()})


def _cancel(axes: "list[Axes]", servers: dict[str, list[Round]], limit: float | None) -> None:
    rows = {name: figures.cancel(rounds) for name, rounds in servers.items()}
    gaps = {name: {"20 streams": row["gap of 20 p50"], "10 streams": row["gap of 10 p50"]} for name, row in rows.items()}
    _bars(axes[0], "Time between tokens of those who stay, p50", "ms", gaps)
    _bars(axes[1], "Slots and KV cache free after", "ms", {name: {"": row["freed after"]} for name, row in rows.items()})
    cells = {name: {"before": row["KV before"], "after": row["KV after"]} for name, row in rows.items()}
    _bars(axes[2], "KV cache in use at the hang-up", "tokens", cells)


PANELS = {"conversation": _conversation, "intrusion": _intrusion, "cancel": _cancel}


def _bars(axis: "Axes", title: str, unit: str, groups: dict[str, Row]) -> None:
    """Bars of each server beside each other, grouped by figure. One nameless figure: a bar per server, named below it."""
    if not any(value is not None for row in groups.values() for value in row.values()):
        axis.set_axis_off()
        return
    keys = list(next(iter(groups.values())))
    width = 0.8 / len(groups)
    for number, row in enumerate(groups.values()):
        places = [at - 0.4 + width * (number + 0.5) for at in range(len(keys))]
        bars = axis.bar(places, [row[key] or 0 for key in keys], 0.92 * width, color=COLOURS[number % len(COLOURS)])
        axis.bar_label(bars, [_short(row[key]) for key in keys], fontsize=8, padding=1)
    axis.set_xlim(-0.6, len(keys) - 0.4)
    axis.set_ylim(top=axis.get_ylim()[1] * 1.12)
    if keys == [""]:
        axis.set_xticks([-0.4 + width * (number + 0.5) for number in range(len(groups))], list(groups))
    else:
        axis.set_xticks(range(len(keys)), keys)
    _label(axis, title, unit)


def _short(value: float | None) -> str:
    return "not told" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _label(axis: "Axes", title: str, unit: str) -> None:
    axis.set_title(title, fontsize=9)
    axis.set_ylabel(unit)
    axis.set_ylim(bottom=0)
