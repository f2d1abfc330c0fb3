"""The soak counts every request once, knows a right answer from a wrong one, and a leak from a process that warms up."""

import asyncio
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

import tools.soak.__main__ as soak
from src.settings import ROOT
from tools.bench.report import machine
from tools.soak import reply, traffic
from tools.soak.cases import CHAT, Case, holds_schema
from tools.soak.killer import Kill
from tools.soak.reference import RIGHT, TIE, WRONG, Place, Reference
from tools.soak.report import Report, at_the_same_age, growth, load, summary, verdict
from tools.soak.tally import ERROR, LEFT, LOST, Tally
from tools.soak.watch import Life, Rest, Sample


def place(token: str, **others: float) -> Place:
    """`others`: tokens and how far their logprobs lie below the drawn one's."""
    return Place(token, -0.1, [(token, -0.1), *((other, -0.1 - below) for other, below in others.items())])


pytestmark = pytest.mark.slow

GREEDY = Reference("one two three", [place("one", une=3.0), place(" two", **{" deux": 0.3, " dos": 2.0}), place(" three")], 0.0)


@pytest.mark.parametrize(
    ("text", "is_"),
    [
        ("one two three", RIGHT),
        ("one deux trois", TIE),
        ("one dos three", WRONG),
        ("une two three", WRONG),
        ("one four", WRONG),
        ("one two", WRONG),
        ("one two three four", WRONG),
        ("", WRONG),
    ],
)
def test_an_answer_may_leave_its_reference_only_at_a_near_tie(text, is_):
    assert GREEDY.judge(text) == is_


def test_a_greedy_answer_is_certain_up_to_its_first_near_tie():
    assert GREEDY.certain() == 1
    assert Reference("a", [place("a", b=2.0)], 0.0).certain() == 1


def test_of_a_draw_only_what_lies_beside_it_may_take_its_place():
    shares = {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}
    drawn = Place("a", math.log(0.4), [(token, math.log(share)) for token, share in shares.items()])
    reference = Reference("a", [drawn], 1.0)
    assert [reference.judge(text) for text in "abcd"] == [RIGHT, TIE, WRONG, WRONG]


# --- replies


def exchange(status: str, body: str, failure: str | None = None) -> SimpleNamespace:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return SimpleNamespace(pieces=[(0.0, head.encode() + body.encode())], failure=failure)


def chunk(text: str, reason: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return "data: " + json.dumps({"id": "x", "choices": [choice]}) + "\n\n"


CASE = Case(CHAT, {"temperature": 0.0}, [Reference("ab", [place("a"), place("b")], 0.0)])


def end_of(exchanged: SimpleNamespace) -> str:
    return traffic._judge(CASE, reply.read(exchanged))[0]


def test_a_stream_and_a_plain_answer_are_read_alike():
    plain = json.dumps({"id": "x", "choices": [{"index": 0, "message": {"content": "ab"}, "finish_reason": "stop"}]})
    for body in (plain, chunk("a") + chunk("b", "stop") + "data: [DONE]\n\n"):
        assert end_of(exchange("200 OK", body)) == RIGHT


@pytest.mark.parametrize(
    ("exchanged", "end"),
    [
        (exchange("200 OK", chunk("a") + chunk("x", "stop") + "data: [DONE]\n\n"), WRONG),
        (exchange("200 OK", chunk("a") + chunk("b") + "data: [DONE]\n\n"), WRONG),  # without a reason
        (exchange("200 OK", "data: [DONE]\n\n"), WRONG),
        (exchange("503 No", '{"error": {"message": "m", "type": "t", "param": null, "code": "c"}}'), ERROR),
        (exchange("503 No", '{"error": {"message": "m"}}'), LOST),
        (exchange("503 No", "<html>"), LOST),
    ],
)
def test_what_is_no_right_answer_is_told_apart(exchanged, end):
    assert end_of(exchanged) == end


@pytest.mark.parametrize(
    "exchanged",
    [
        exchange("200 OK", chunk("a")),
        exchange("200 OK", chunk("a") + chunk("b", "stop")),
        exchange("200 OK", chunk("ab", "stop") + "data: [DONE]\n\n", failure="ConnectionResetError"),
        SimpleNamespace(pieces=[], failure="refused"),
        SimpleNamespace(pieces=[(0.0, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{")], failure=None),
    ],
)
def test_an_answer_without_its_end_is_broken_off(exchanged):
    with pytest.raises(reply.BrokenOff):
        reply.read(exchanged)


def test_a_schema_is_held_to_the_letter():
    assert holds_schema('{"city": "Rome", "days": 3}')
    for text in ("", "{}", '{"city": "Rome", "days": 3.0}', '{"city": "Bonn", "days": 3}', '{"city": "Rome", "days": 3, "more": 1}'):
        assert not holds_schema(text)


def test_who_is_broken_off_asks_again_only_after_a_gateway_worker_was_killed():
    async def ask(kills: list[float]) -> Tally:
        of = traffic.Traffic("http://127.0.0.1:1", "any", 1, lambda: kills)
        stop = asyncio.Event()
        of._kinds = [(1, "plain", lambda draw: (stop.set(), of._ask(CHAT, b"{}"))[1])]
        await of.run(1, stop)
        return of.tally

    for kills, again in (([], 0), ([math.inf], traffic.TRIES - 1)):
        tally = asyncio.run(ask(kills))
        assert (tally.total_asked, tally.total(LOST), tally.asked_again) == (1, 1, again)


# --- figures


def life(role: str, rss: list[float], seconds: float = 1000, born: float = 0) -> Life:
    """So many MiB at equal distances over its life."""
    pause = seconds / len(rss)
    return Life(role, 1, born, [Sample(born + pause * number, int(of * 2**20), 10, 2) for number, of in enumerate(rss)])


def test_growth_does_not_count_the_warm_up():
    warming = life("gateway", [10.0 + 40 * (number < 20) * number / 20 + 40 * (number >= 20) for number in range(100)])
    assert growth(warming).percent == pytest.approx(0)
    leaking = life("gateway", [100 + number / 10 for number in range(100)])
    assert growth(leaking).percent == pytest.approx(7, abs=0.5)
    assert growth(life("gateway", [1.0] * 10, seconds=50)) is None


def test_processes_that_are_killed_are_compared_at_the_same_age():
    steady = report_of([life("runner", [10, 50, 100], 12, born=12.0 * number) for number in range(9)])
    age, grown = at_the_same_age(steady, "runner")
    assert (age, grown.percent) == (8, 0)
    heavier = report_of([life("runner", [10, 50, 100 + number], 12, born=12.0 * number) for number in range(9)])
    assert at_the_same_age(heavier, "runner")[1].percent > 5


def report_of(lives: list[Life], tally: Tally | None = None, after: Rest | None = None) -> Report:
    return Report(
        date="2026-01-01T00:00:00+00:00",
        argv=[],
        seed=1,
        machine=machine(),
        settings={},
        engine="echo",
        seconds=1000,
        clients=1,
        kills=[Kill(at=1, role="runner", pid=1, loading=False, back=0.5)],
        tally=tally or Tally(),
        lives=lives,
        rest_before=Rest(),
        rest_after=after or Rest(),
    )


def tally_of(*ends: str) -> Tally:
    tally = Tally(asked={}, ends={}, errors={}, odd=[], times=[])
    for end in ends:
        tally.ask("plain")
        tally.end(1.0, "plain", end, "engine_unavailable: why")
    return tally


def test_all_is_well_only_where_nothing_was_lost_wrong_left_running_or_leaked():
    assert verdict(report_of([life("runner", [100.0] * 100)], tally_of(RIGHT, TIE, ERROR, LEFT))) == []
    unanswered = tally_of(RIGHT)
    unanswered.ask("plain")
    for report, word in (
        (report_of([], tally_of(LOST)), "lost"),
        (report_of([], tally_of(WRONG)), "wrong"),
        (report_of([], unanswered), "2 requests were asked, and 1 ended"),
        (report_of([], after=Rest(running=1)), "still run"),
        (report_of([life("manager", [100 + number / 10 for number in range(100)])]), "the manager grew by 7"),
    ):
        [why] = verdict(report)
        assert word in why
        assert f"NOT WELL: {why}" in summary(report)


def test_a_short_soak_kills_every_role_and_loses_nothing(tmp_path):
    raw, picture = tmp_path / "soak.json", tmp_path / "soak.svg"
    command = [sys.executable, "-m", "tools.soak", "--minutes", "0.2", "--kill-every", "2", "--clients", "8", "--sample-every", "0.5"]
    environ = {**os.environ, "INFERENCE_ENGINE": "echo", "ECHO_STEP_MS": "5"}
    done = subprocess.run([*command, "--seed", "1", "--json", str(raw)], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all is well" in done.stdout
    report = load(raw)
    assert {kill.role for kill in report.kills} == {"gateway", "manager", "runner"}
    assert report.tally.total(RIGHT) >= 8, "one for each client, however slow the machine is"
    assert report.tally.total(RIGHT) + report.tally.total(ERROR) + report.tally.total(LEFT) == report.tally.total_asked
    assert {of.role for of in report.lives} == {"master", "gateway", "manager", "runner"}
    soak.main(["--from", str(raw), "--picture", str(picture)])
    assert ElementTree.parse(picture).getroot().tag == "{http://www.w3.org/2000/svg}svg"
