"""What a soak's file holds, and the figures of it. Measures nothing.

How a leak is told from a process that warms up: of each role the process that lived longest is looked at, after a fifth of its life
(60 s at least), and growth is the median of the last tenth of the rest against that of its first tenth. Where a role was killed
again and again, its processes are compared at the same age: the first third of them with the last.
"""

import statistics
from pathlib import Path

import msgspec

from tools.bench.report import Machine
from tools.soak.killer import Kill
from tools.soak.reference import RIGHT, TIE, WRONG
from tools.soak.tally import ENDS, ERROR, LEFT, LOST, Tally
from tools.soak.watch import Life, Rest

TARGET_PERCENT = 2.0
WARM_SHARE, WARM_SECONDS = 0.2, 60.0
LONG_SECONDS = 300.0  # a life that is long enough to be held to the target
ROLES = ("master", "gateway", "manager", "runner")


class Growth(msgspec.Struct):
    """Of one process after its warm-up. Bytes and seconds."""

    seconds: float
    before: float
    after: float

    @property
    def percent(self) -> float:
        return 100 * (self.after / self.before - 1)


class Report(msgspec.Struct, kw_only=True):
    date: str
    argv: list[str]
    seed: int
    machine: Machine
    settings: dict[str, str]
    engine: str
    seconds: float
    clients: int
    kills: list[Kill]
    tally: Tally
    lives: list[Life]
    rest_before: Rest
    rest_after: Rest

    def write(self, path: Path) -> None:
        path.write_bytes(msgspec.json.encode(self) + b"\n")


def load(path: Path) -> Report:
    """Raises OSError, or msgspec.DecodeError or msgspec.ValidationError for a file that is no report."""
    return msgspec.json.decode(path.read_bytes(), type=Report)


def growth(life: Life) -> Growth | None:
    """None of a life that was too short to tell."""
    ages = life.ages()
    if not ages:
        return None
    warm = ages[0][0] + max(WARM_SECONDS, WARM_SHARE * (ages[-1][0] - ages[0][0]))
    rest = [(age, rss) for age, rss in ages if age >= warm]
    tenth = len(rest) // 10
    if tenth < 1 or rest[-1][0] - rest[0][0] < WARM_SECONDS:
        return None
    first, last = rest[:tenth], rest[-tenth:]
    return Growth(rest[-1][0] - rest[0][0], statistics.median(rss for _, rss in first), statistics.median(rss for _, rss in last))


def longest(report: Report, role: str) -> Life | None:
    return max((life for life in report.lives if life.role == role), key=lambda life: len(life.samples), default=None)


def at_the_same_age(report: Report, role: str) -> tuple[float, Growth] | None:
    """The age, and the first third of a role's processes against the last, each at that age."""
    lives = [life for life in report.lives if life.role == role and life.samples and life.born >= 0]
    if len(lives) < 6:
        return None
    ages = sorted(life.ages()[-1][0] for life in lives)
    age = ages[len(ages) // 3]  # two thirds have lived longer
    found = [next(rss for at, rss in life.ages() if at >= age) for life in lives if life.ages()[-1][0] >= age]
    third = max(1, len(found) // 3)
    return age, Growth(report.seconds, statistics.median(found[:third]), statistics.median(found[-third:]))


def verdict(report: Report) -> list[str]:
    """What is not as it has to be; empty: all is well."""
    wrong = []
    tally = report.tally
    ended = sum(tally.total(end) for end in ENDS)
    if ended != tally.total_asked:
        wrong.append(f"{tally.total_asked} requests were asked, and {ended} ended")
    for end in (LOST, WRONG):
        if count := tally.total(end):
            wrong.append(f"{count} answers {end}")
    rest = report.rest_after
    if rest.running or rest.waiting:
        wrong.append(f"{rest.running} requests still run and {rest.waiting} wait, of no client")
    for role in ROLES:
        life = longest(report, role)
        grown = growth(life) if life else None
        if grown and grown.seconds >= LONG_SECONDS and grown.percent > TARGET_PERCENT:
            wrong.append(f"the {role} grew by {grown.percent:.1f} % in {grown.seconds:.0f} s, more than {TARGET_PERCENT:g} %")
    return wrong


def summary(report: Report) -> str:
    machine, tally = report.machine, report.tally
    lines = [
        f"{report.date}  {machine.processor}, {machine.cores} cores, {machine.memory_bytes / 2**30:.0f} GiB, engine {report.engine}, "
        f"{report.seconds:.0f} s, {report.clients} clients",
        "",
        f"asked {tally.total_asked}, "
        + ", ".join(f"{end} {tally.total(end)}" for end in (RIGHT, TIE, ERROR, LEFT, WRONG, LOST))
        + f"; asked again after a gateway worker's death: {tally.asked_again}",
    ]
    lines += [f"  {kind}: asked {count}, {_counts(tally.ends.get(kind, {}))}" for kind, count in tally.asked.items()]
    lines += [f"  errors {code}: {count}" for code, count in tally.errors.items()]
    lines += ["", *(_kills(report, role) for role in ROLES[1:] if any(kill.role == role for kill in report.kills)), ""]
    for role in ROLES:
        lines += _memory(report, role)
    lines += ["", f"at rest, before and after, in MiB, descriptors, threads: {_rest(report)}"]
    lines += [f"KV cache in use at rest: {report.rest_before.kv_used_tokens} and {report.rest_after.kv_used_tokens} tokens", ""]
    lines += [f"NOT WELL: {what}" for what in verdict(report)] or ["all is well"]
    return "\n".join(lines)


def _counts(of: dict[str, int]) -> str:
    return ", ".join(f"{end} {of[end]}" for end in ENDS if end in of)


def _kills(report: Report, role: str) -> str:
    kills = [kill for kill in report.kills if kill.role == role]
    back = [kill.back for kill in kills if kill.back is not None]
    loading = sum(kill.loading for kill in kills)
    median = f", back after {statistics.median(back):.1f} s (median), {max(back):.1f} s at most" if back else ""
    return f"{role}: killed {len(kills)} times, {loading} of them while it loaded{median}"


def _memory(report: Report, role: str) -> list[str]:
    lines = []
    life = longest(report, role)
    if life and (grown := growth(life)):
        lines.append(
            f"{role}: {grown.before / 2**20:.1f} MiB after its warm-up, {grown.after / 2**20:.1f} MiB {grown.seconds:.0f} s later: "
            f"{grown.percent:+.2f} %; descriptors {_range(life, 'descriptors')}, threads {_range(life, 'threads')}"
        )
    if compared := at_the_same_age(report, role):
        age, grown = compared
        lines.append(
            f"{role}s at the age of {age:.0f} s: {grown.before / 2**20:.1f} MiB the first ones, "
            f"{grown.after / 2**20:.1f} MiB the last ones: {grown.percent:+.2f} %"
        )
    return lines


def _range(life: Life, what: str) -> str:
    """The first and the last tenth's medians."""
    values = [getattr(sample, what) for sample in life.samples]
    tenth = max(1, len(values) // 10)
    return f"{statistics.median(values[:tenth]):g} to {statistics.median(values[-tenth:]):g} (at most {max(values)})"


def _rest(report: Report) -> str:
    def of(rest: Rest, role: str) -> str:
        return " ".join(f"{sample.rss / 2**20:.0f}/{sample.descriptors}/{sample.threads}" for sample in rest.processes.get(role, []))

    return ", ".join(f"{role} {of(report.rest_before, role)} → {of(report.rest_after, role)}" for role in ROLES)
