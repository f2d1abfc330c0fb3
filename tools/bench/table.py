"""The figures as text for a terminal. Computes none."""

from tools.bench import figures
from tools.bench.figures import Row
from tools.bench.limit import WORKLOAD as LIMITED
from tools.bench.report import Report
from tools.bench.workloads import WORKLOADS, Round


def table(report: Report) -> str:
    machine = report.machine
    lines = [
        f"{report.date}  {machine.processor}, {machine.cores} cores, {machine.memory_bytes / 2**30:.0f} GiB, {machine.system}, "
        f"Python {report.versions['python']}. Times in milliseconds."
    ]
    for workload, servers in report.rounds.items():
        rounds = max(len(of) for of in servers.values())
        lines += ["", f"{workload} ({rounds} {'round' if rounds == 1 else 'rounds'}): {WORKLOADS[workload].__doc__}"]
        if workload == "conversation":
            lines += _conversation(servers)
        else:
            rows = {name: figures.row_of(workload, of) for name, of in servers.items()}
            if workload == LIMITED and report.limit:
                rows["limit"] = figures.limit_row(report)
            lines += _rows(rows) + _summary(rows)
        for name, of in servers.items():
            lines += [f"{name} failed {len(wrong)} times, first: {wrong[0]}" for wrong in [figures.failures(of)] if wrong]
    return "\n".join(lines)


def _cells(row: Row) -> dict[str, str]:
    """The percentiles of a quantity share a cell: {"gap p50": 1, "gap p99": 2} is shown as "gap p50/99": "1/2"."""
    names: dict[str, list[str]] = {}
    for key in row:
        quantity, _, share = key.rpartition(" p")
        names.setdefault(quantity if share.isdigit() else key, []).append(key)
    cells = {}
    for quantity, keys in names.items():
        title = quantity if keys == [quantity] else f"{quantity} p" + "/".join(key.rpartition(" p")[2] for key in keys)
        cells[title] = "/".join(_number(row[key]) for key in keys)
    return cells


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _rows(rows: dict[str, Row]) -> list[str]:
    """Lines with aligned columns, the names of the rows first."""
    cells = {name: _cells(row) for name, row in rows.items()}
    titles = list(dict.fromkeys(title for row in cells.values() for title in row))
    lines = [["", *titles], *([name, *(row.get(title, "") for title in titles)] for name, row in cells.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines]


def _conversation(servers: dict[str, list[Round]]) -> list[str]:
    """A block per server, a line per turn."""
    lines = []
    for name, rounds in servers.items():
        turns = figures.conversation(rounds)
        rows = {f"{name}, turn {number}": turn for number, turn in enumerate(turns, 1)}
        rows["all turns"] = {key: sum(turn[key] or 0 for turn in turns) for key in ("prompt", "new", "cached", "prefilled", "first token")}
        lines += _rows(rows)
    return lines


def _summary(rows: dict[str, Row]) -> list[str]:
    """The first server against each other, as ratios of medians, and each against the limit."""
    names = [name for name in rows if name != "limit"]
    pairs = [(names[0], other) for other in names[1:]] + [(name, "limit") for name in names if "limit" in rows]
    lines = []
    for one, other in pairs:
        shown = [
            f"{value:.2f} x {key}"
            for key in ("tokens/s", "requests/s", "with it p99", "its first token", "gap of 10 p50")
            if (value := figures.ratio(rows[one].get(key), rows[other].get(key))) is not None
        ]
        if shown:
            lines.append(f"{one} / {other}: {', '.join(shown)}")
    return lines
