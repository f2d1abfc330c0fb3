"""Figures from raw times, and the table on the terminal. Measures nothing.

Rates are medians over the rounds; latencies are percentiles over all answers of all rounds, and only of complete answers.
"""

import statistics
from collections.abc import Callable, Sequence

from tools.bench.recording import Answer
from tools.bench.report import Report
from tools.bench.workloads import LONG, Round

SHARES = (50, 95, 99)
Row = dict[str, float | None]  # a figure by its name; None where there is nothing to compute it from


def percentile(values: Sequence[float], share: float) -> float | None:
    """Linear between the two nearest ranks (numpy's default); `share` in per cent."""
    if not values:
        return None
    ordered = sorted(values)
    position = (len(ordered) - 1) * share / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def ratio(value: float | None, of: float | None) -> float | None:
    return value / of if value is not None and of else None


def _milliseconds(values: Sequence[float], name: str, shares: Sequence[int] = SHARES) -> Row:
    found = {f"{name} p{share}": percentile(values, share) for share in shares}
    return {key: None if value is None else 1000 * value for key, value in found.items()}


def good(rounds: list[Round]) -> list[Answer]:
    return [answer for one in rounds for answer in one.answers if answer.good]


def failures(rounds: list[Round]) -> list[str]:
    return [answer.error for one in rounds for answer in one.answers if answer.error is not None]


def requests_per_second(one: Round) -> float:
    return sum(answer.good for answer in one.answers) / one.seconds if one.seconds else 0.0


def tokens_per_second(one: Round) -> float:
    """Completion tokens that were delivered, those of answers that ended too early included."""
    return sum(answer.completion_tokens for answer in one.answers) / one.seconds if one.seconds else 0.0


def own_percent(rounds: list[Round]) -> float | None:
    """Share of the engine thread's busy time that was not spent in the library's forward pass."""
    shares = [100 * (1 - one.compute_seconds / one.step_seconds) for one in rounds if one.step_seconds and one.compute_seconds is not None]
    return median(shares)


def throughput(rounds: list[Round]) -> Row:
    answers = good(rounds)
    return {
        "requests/s": median([requests_per_second(one) for one in rounds]),
        "tokens/s": median([tokens_per_second(one) for one in rounds]),
        **_milliseconds([answer.first_token for answer in answers if answer.first_token is not None], "first token"),
        **_milliseconds([gap for answer in answers for gap in answer.gaps()], "gap"),
        **_milliseconds([answer.ended - answer.sent for answer in answers], "whole answer"),
        "prompt": median([answer.prompt_tokens for answer in answers]),
        "cached": median([answer.cached_tokens for answer in answers]),
        "own %": own_percent(rounds),
        "client %": median([100 * one.client_seconds / one.seconds for one in rounds if one.seconds]),
        "failed": len(failures(rounds)),
    }


def conversation(rounds: list[Round]) -> list[Row]:
    """A row per turn. `new` is what the turn adds to the turn before and its answer."""
    rows: list[Row] = []
    for turn in range(max(len(one.answers) for one in rounds)):
        answers = [one.answers[turn] for one in rounds if len(one.answers) > turn and one.answers[turn].good]
        earlier = [one.answers[turn - 1] if turn else None for one in rounds if len(one.answers) > turn and one.answers[turn].good]
        new = [
            answer.prompt_tokens - (before.prompt_tokens + before.completion_tokens if before else 0)
            for answer, before in zip(answers, earlier, strict=True)
        ]
        times = [1000 * answer.first_token for answer in answers if answer.first_token is not None]
        rows.append(
            {
                "prompt": median([answer.prompt_tokens for answer in answers]),
                "new": median(new),
                "cached": median([answer.cached_tokens for answer in answers]),
                "prefilled": median([answer.prompt_tokens - answer.cached_tokens for answer in answers]),
                "first token": median(times),
            }
        )
    return rows


def intrusion(rounds: list[Round]) -> Row:
    """Gaps of the 8: before the long prompt was sent, and those that touch the time until its first token."""
    before: list[float] = []
    during: list[float] = []
    longs = [answer for answer in good(rounds) if answer.role == LONG and answer.arrivals]
    for one in rounds:
        streams = [answer for answer in one.answers if answer.role != LONG and answer.arrivals]
        for long in (answer for answer in one.answers if answer in longs):
            all_decode = max(stream.arrivals[0] for stream in streams)
            before += [gap for stream in streams for gap in stream.gaps_within(all_decode, long.sent)]
            during += [gap for stream in streams for gap in stream.gaps_touching(long.sent, long.arrivals[0])]
    row: Row = {**_milliseconds(before, "without it", (50, 99)), **_milliseconds(during, "with it", (50, 99))}
    row["p99 ratio"] = ratio(row["with it p99"], row["without it p99"])
    row["long prompt"] = median([long.prompt_tokens for long in longs])
    row["its first token"] = median([1000 * long.first_token for long in longs if long.first_token is not None])
    row["own %"] = own_percent(rounds)
    row["failed"] = len(failures(rounds))
    return row


def cancel(rounds: list[Round]) -> Row:
    """Gaps of those who stay: while all decode, and for as long after the hang-up (later their growing contexts would count too)."""
    before: list[float] = []
    after: list[float] = []
    for one in rounds:
        cuts = [answer.cut for answer in one.answers if answer.cut is not None]
        started = [answer.arrivals[0] for answer in one.answers if answer.arrivals]
        for stayed in (answer for answer in one.answers if answer.cut is None and answer.good and cuts):
            before += stayed.gaps_within(max(started), min(cuts))
            after += stayed.gaps_within(max(cuts), 2 * max(cuts) - max(started))
    freed = [one.freed for one in rounds if one.freed is not None]
    row: Row = {**_milliseconds(before, "gap of 20", (50,)), **_milliseconds(after, "gap of 10", (50,))}
    row["speed-up"] = ratio(row["gap of 20 p50"], row["gap of 10 p50"])
    row["freed after"] = median([1000 * each.seconds for each in freed])
    row["running"] = median([each.running_after for each in freed])
    row["KV before"] = median([each.kv_before for each in freed])
    row["KV after"] = median([each.kv_after for each in freed])
    row["failed"] = len(failures(rounds))
    return row


SPECIAL: dict[str, Callable[[list[Round]], Row]] = {"intrusion": intrusion, "cancel": cancel}


def row_of(workload: str, rounds: list[Round]) -> Row:
    return SPECIAL.get(workload, throughput)(rounds)


def limit_row(report: Report) -> Row:
    runs = report.limit
    return {"requests/s": median([run.requests_per_second for run in runs]), "tokens/s": median([run.tokens_per_second for run in runs])}
