"""A soak as a picture: memory, descriptors, threads and answers over time. Computes no figures."""

from pathlib import Path
from typing import TYPE_CHECKING

from tools.bench.canvas import COLOURS, GREY, canvas
from tools.soak.report import ROLES, Report
from tools.soak.tally import ENDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BIN_SECONDS = 10.0


def draw(report: Report, path: Path) -> None:
    """Write the picture; the file's ending says how (.svg, .png, .pdf). Raises PictureFailed."""
    title = (
        f"{report.machine.processor}, {report.machine.cores} cores, {report.date[:10]}; engine {report.engine}, {report.clients} clients, "
        f"{len(report.kills)} kills: ▾ runner, ▼ gateway worker or manager"
    )
    with canvas(path, report.date, (11, 13), title) as picture:
        axes = list(picture.subplots(6, 1, sharex=True))
        for axis, roles, title in (
            (axes[0], ("runner",), "Memory (RSS) of each runner"),
            (axes[1], ROLES[:-1], "Memory (RSS) of master, gateway worker and manager"),
        ):
            _lines(axis, report, roles, "rss", 2**20)
            axis.set_ylabel("MiB")
            axis.set_title(title, fontsize=9, loc="left")
        for axis, what in ((axes[2], "descriptors"), (axes[3], "threads")):
            _lines(axis, report, ROLES, what, 1)
            axis.set_title(f"Open {what}" if what == "descriptors" else "Threads", fontsize=9, loc="left")
        _answers(axes[4], report)
        _recoveries(axes[5], report)
        axes[-1].set_xlabel("seconds")


def _lines(axis: "Axes", report: Report, roles: tuple[str, ...], what: str, unit: int) -> None:
    """A line for each process, a colour for each role."""
    for role in roles:
        colour, label = COLOURS[ROLES.index(role)], role
        for life in (life for life in report.lives if life.role == role):
            samples = [sample for sample in life.samples if sample.rss]  # a process that has just died has none
            values = [getattr(sample, what) / unit for sample in samples]
            axis.plot(
                [sample.at for sample in samples],
                values,
                color=colour,
                linewidth=1.2,
                label=label,
                marker="." if len(values) == 1 else "",
            )
            label = "_"  # one entry of the legend for all of them
    for kill in report.kills:
        axis.plot([kill.at], [1], marker="v", markersize=3 if kill.role == "runner" else 6, color=GREY, alpha=0.6,
                  transform=axis.get_xaxis_transform(), clip_on=False)  # fmt: skip
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize=8, loc="upper right", ncols=len(roles))


def _answers(axis: "Axes", report: Report) -> None:
    """How many requests ended in each stretch of time, and how."""
    bins = [BIN_SECONDS * number for number in range(int(max((at for at, _ in report.tally.times), default=0) / BIN_SECONDS) + 1)]
    floor = [0.0] * len(bins)
    colours = dict(zip(ENDS, ("#4f9d5d", "#b7d9bd", "#c0392b", "#e08a2e", "#b0b0b0", "#000000"), strict=True))
    for end in ENDS:
        counts = [0.0] * len(bins)
        for at, how in report.tally.times:
            counts[int(at / BIN_SECONDS)] += how == end
        if any(counts):
            axis.bar(bins, counts, BIN_SECONDS, bottom=floor, align="edge", color=colours[end], label=f"{end} ({report.tally.total(end)})")
            floor = [below + count for below, count in zip(floor, counts, strict=True)]
    axis.set_title(f"Answers in {BIN_SECONDS:g} s, by how they ended", fontsize=9, loc="left")
    axis.set_ylim(top=max([*floor, 1]) * 1.25)
    axis.legend(frameon=False, fontsize=8, loc="upper right", ncols=len(ENDS))


def _recoveries(axis: "Axes", report: Report) -> None:
    for role in ROLES[1:]:
        back = [(kill.at, kill.back) for kill in report.kills if kill.role == role and kill.back is not None]
        if back:
            axis.plot([at for at, _ in back], [after for _, after in back], ".", color=COLOURS[ROLES.index(role)], label=role)
    axis.set_title("From a kill till the model can be asked again", fontsize=9, loc="left")
    axis.set_ylabel("seconds")
    axis.set_ylim(bottom=0)
    if report.kills:
        axis.legend(frameon=False, fontsize=8, loc="upper right", ncols=3)
