"""The benchmark counts what was delivered, when it was delivered, and nothing else. No claim here is about speed."""

import asyncio
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from xml.etree import ElementTree

import pytest

import tools.bench.__main__ as bench
from src.settings import ROOT
from tests.support import server as service
from tests.support.http_server import LocalServer
from tools.bench import figures, limit
from tools.bench.client import Exchange, Server
from tools.bench.recording import Answer, read
from tools.bench.report import begin, load
from tools.bench.table import table
from tools.bench.workloads import LONG, WORKLOADS, Freed, Round

pytestmark = pytest.mark.slow

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def token(text: str) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}}])


def usage(completion: int, prompt: int = 10, cached: int = 0) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": {"cached_tokens": cached}}
    return event(choices=[], usage=counts)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


ROLE = event(choices=[{"index": 0, "delta": {"role": "assistant", "content": None}}])
END = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def recorded(*pieces: tuple[float, bytes], asked: int = 2, cut: float | None = None) -> tuple[Answer, str]:
    async def make() -> Exchange:
        return Exchange(b"", asked)

    exchange = asyncio.run(make())
    exchange.sent, exchange.pieces, exchange.cut = 100.0, list(pieces), cut
    return read(exchange, began=90.0)


# --- what was recorded, read later


def test_times_are_those_of_the_pieces_that_brought_text():
    answer, text = recorded(
        (101.0, HEAD + chunk(ROLE)), (102.0, chunk(token("a"))), (105.0, chunk(token("b"))), (106.0, chunk(usage(2, 7, 3)) + END)
    )
    assert (answer.error, text) == (None, "ab")
    assert (answer.first_token, answer.gaps(), answer.ended - answer.sent) == (2.0, [3.0], 6.0)
    assert (answer.prompt_tokens, answer.cached_tokens, answer.completion_tokens) == (7, 3, 2)


def test_text_that_comes_together_is_one_arrival_and_all_its_tokens_count():
    answer, text = recorded((102.0, HEAD + chunk(token("a") + token("b"))), (103.0, chunk(token("c")) + chunk(usage(3)) + END), asked=3)
    assert (answer.error, text, answer.gaps(), answer.completion_tokens) == (None, "abc", [1.0], 3)


def test_an_answer_reads_the_same_wherever_its_pieces_are_cut():
    whole = HEAD + chunk(ROLE) + chunk(token("é")) + chunk(token("b") + usage(2)) + END
    for at in range(len(whole) + 1):
        answer, text = recorded((102.0, whole[:at]), (103.0, whole[at:])) if 0 < at < len(whole) else recorded((103.0, whole))
        assert (answer.error, text, answer.completion_tokens) == (None, "éb", 2), at


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        pytest.param(HEAD + chunk(token("a")) + chunk(usage(1)) + END, "1 of 2 tokens", id="short"),
        pytest.param(HEAD + chunk(token("ab")) + END, "0 of 2 tokens", id="no usage"),
        pytest.param(HEAD + chunk(token("a")), "without sending complete message body", id="cut off"),
        pytest.param(HEAD + chunk(token("a")) + chunk(event(error={"message": "out of cells"})) + END, "out of cells", id="error event"),
        pytest.param(b'HTTP/1.1 429 Too Many\r\nContent-Length: 31\r\n\r\n{"error": {"message": "later"}}\n', "429: later", id="refused"),
        pytest.param(b"HTTP/1.1 502 Bad\r\nContent-Length: 4\r\n\r\noops", "502: oops", id="no JSON"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n", "unexpectedly closed connection", id="no HTTP"),
        pytest.param(b"", "no answer", id="nothing"),
    ],
)
def test_whatever_is_not_a_complete_answer_is_a_failure(pieces, error):
    answer, _ = recorded(*([(101.0, pieces)] if pieces else []))
    assert answer.error is not None
    assert error in answer.error


def test_an_answer_that_the_reader_cut_is_no_failure():
    answer, _ = recorded((101.0, HEAD + chunk(token("a"))), (102.0, chunk(token("b"))), cut=103.0)
    assert (answer.error, answer.gaps(), answer.cut) == (None, [1.0], 13.0)


# --- figures from known times


def answer_of(arrivals: list[float], sent: float = 0.0, tokens: int = 4, **fields: object) -> Answer:
    values = {"asked": tokens, "completion_tokens": tokens, "ended": arrivals[-1] if arrivals else sent, **fields}
    return Answer(sent=sent, arrivals=arrivals, **values)


def round_of(*answers: Answer, seconds: float = 2.0, **fields: object) -> Round:
    return Round(seconds=seconds, answers=list(answers), client_seconds=0.1, **fields)


@pytest.mark.parametrize(("share", "value"), [(0, 1.0), (50, 3.0), (95, 4.8), (99, 4.96), (100, 5.0)])
def test_percentiles_lie_between_ranks(share, value):
    assert figures.percentile([5.0, 3.0, 1.0, 4.0, 2.0], share) == pytest.approx(value)


def test_nothing_has_no_percentile():
    assert figures.percentile([], 50) is None


def test_rates_are_medians_over_rounds_and_latencies_are_pooled():
    rounds = [
        round_of(answer_of([0.5, 1.0]), answer_of([0.7, 1.0]), seconds=1.0, step_seconds=2.0, compute_seconds=1.9),
        round_of(answer_of([0.9, 1.1]), seconds=2.0, step_seconds=2.0, compute_seconds=1.8),
        round_of(answer_of([0.1, 0.2]), seconds=4.0),
    ]
    row = figures.throughput(rounds)
    assert row["requests/s"] == 0.5
    assert row["tokens/s"] == 2.0
    assert row["first token p50"] == pytest.approx(600)
    assert row["gap p50"] == pytest.approx(250)
    assert row["own %"] == pytest.approx(7.5)
    assert row["client %"] == pytest.approx(5)
    assert row["failed"] == 0


def test_failed_answers_are_neither_requests_nor_latencies_but_their_tokens_were_delivered():
    short = answer_of([0.9, 1.8], completion_tokens=2, error="2 of 4 tokens")
    row = figures.throughput([round_of(answer_of([0.5, 1.0]), short, Answer(asked=4, sent=0.0, ended=0.0, error="refused"))])
    assert (row["requests/s"], row["tokens/s"], row["failed"]) == (0.5, 3.0, 2)
    assert row["first token p99"] == pytest.approx(500)


def test_a_turn_shows_what_it_adds_and_what_is_computed():
    turns = [
        answer_of([0.1], prompt_tokens=50, cached_tokens=20, completion_tokens=32),
        answer_of([1.1], sent=1.0, prompt_tokens=110, cached_tokens=80, completion_tokens=32),
    ]
    first, second = figures.conversation([round_of(*turns)])
    assert (first["prompt"], first["new"], first["prefilled"]) == (50, 50, 30)
    assert (second["prompt"], second["new"], second["cached"], second["prefilled"]) == (110, 28, 80, 30)
    assert second["first token"] == pytest.approx(100)


def test_a_stream_that_stands_still_while_the_long_prompt_is_computed_shows_it():
    stream = answer_of([1.0, 1.1, 1.2, 1.3, 5.3, 5.4])
    long = answer_of([5.0], sent=1.35, role=LONG, prompt_tokens=4000)
    row = figures.intrusion([round_of(stream, long)])
    assert row["without it p50"] == pytest.approx(100)
    assert row["with it p50"] == row["with it p99"] == pytest.approx(4000)
    assert row["p99 ratio"] == pytest.approx(40)
    assert row["its first token"] == pytest.approx(3650)
    assert row["long prompt"] == 4000


def test_a_hang_up_is_judged_by_those_who_stay_for_as_long_after_it_as_before():
    stays = answer_of([1.0, 1.4, 1.8, 2.0, 2.2, 2.4, 2.6, 9.0])
    leaves = answer_of([1.0, 1.4], cut=1.9)
    freed = Freed(seconds=0.05, running_before=2, running_after=1, kv_before=100, kv_after=50)
    row = figures.cancel([round_of(stays, leaves, freed=freed)])
    assert (row["gap of 20 p50"], row["gap of 10 p50"]) == (pytest.approx(400), pytest.approx(200))
    assert row["speed-up"] == pytest.approx(2)
    assert (row["freed after"], row["KV before"], row["KV after"]) == (50, 100, 50)


# --- reports


def report_of(**servers: list[Round]):
    report = begin(1, {name: {"url": "http://any"} for name in servers})
    for name, rounds in servers.items():
        for one in rounds:
            for workload in WORKLOADS:
                report.add(workload, name, one)
    return report


def full_report():
    freed = Freed(seconds=0.05, running_before=2, running_after=1, kv_before=100, kv_after=50)
    answers = [answer_of([1.0, 1.123456789, 1.4]), answer_of([1.0, 1.2], cut=1.3), answer_of([1.4], sent=1.2, role=LONG)]
    fast, slow = round_of(*answers, seconds=1.0, freed=freed), round_of(*answers, seconds=2.0)
    report = report_of(ours=[fast], theirs=[slow])
    report.limit.append(limit.Limit(command=["x"], environment={}, raw={"pl": 20, "tg": 64, "t": 5.0}))
    return report


def test_ratios_are_those_of_the_medians_and_of_the_limit():
    lines = table(full_report()).splitlines()
    assert "ours / theirs: 2.00 x tokens/s, 2.00 x requests/s" in lines
    assert "ours / limit: 0.05 x tokens/s, 0.75 x requests/s" in lines


def test_failures_are_named_below_the_table():
    report = report_of(ours=[round_of(answer_of([1.0]), Answer(asked=4, sent=0.0, ended=0.0, error="429: later"))])
    assert "ours failed 1 times, first: 429: later" in table(report)


def test_a_report_survives_its_file(tmp_path):
    report = full_report()
    report.write(tmp_path / "raw.json")
    again = load(tmp_path / "raw.json")
    assert table(again) == table(report)
    assert (again.machine, again.argv, again.date, again.seed) == (report.machine, report.argv, report.date, report.seed)


def test_an_earlier_report_is_shown_and_drawn_without_measuring(tmp_path, capsys):
    full_report().write(tmp_path / "raw.json")
    for name in ("picture.svg", "picture.png"):
        bench.main(["--from", str(tmp_path / "raw.json"), "--picture", str(tmp_path / name)])
    assert "ours / theirs: 2.00 x tokens/s" in capsys.readouterr().out
    assert ElementTree.parse(tmp_path / "picture.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "absent.json"], "absent.json"),
        (["--from", "pyproject.toml"], "not a file that --json has written"),
        (["single", "--compare", "ours=http://127.0.0.1:1"], "does not answer at http://127.0.0.1:1/v1/models"),
    ],
)
def test_what_cannot_be_measured_or_shown_is_said_in_a_line(arguments, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        bench.main(arguments)
    assert words in str(ended.value)
    assert "\n" not in str(ended.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent"], "no workload absent"),
        (["--compare", "http://127.0.0.1:1"], "NAME=URL"),
        (["--limit", "llama-batched-bench"], "--limit-model"),
        (["--rounds", "0"], "--rounds"),
    ],
)
def test_a_wrong_argument_is_named(arguments, words, capsys):
    with pytest.raises(SystemExit):
        bench.arguments_of(arguments)
    assert words in capsys.readouterr().err


# --- real sockets


class Scripted(LocalServer):
    """A real HTTP server that answers each chat with as many tokens as it was asked for, but closes every connection unannounced."""

    def __init__(self, name: str, log: list[tuple[str, dict]], short: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Chat)
        self.name, self.log, self.short = name, log, short
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.open = self.most_open = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Chat(BaseHTTPRequestHandler):
    server: Scripted
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b'{"data": [{"id": "scripted"}]}' if self.path == "/v1/models" else b"{}"
        self.send_response(200 if self.path == "/v1/models" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.log.append((server.name, body))
            server.open += 1
            server.most_open = max(server.most_open, server.open)
        tokens = body["max_tokens"] - server.short
        self.wfile.write(HEAD + chunk(ROLE))
        for _ in range(tokens):
            self.wfile.write(chunk(token("x")))
        with server.lock:
            server.open -= 1  # before the end is written: only then may the next one come
        self.wfile.write(chunk(usage(tokens)) + END)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def scripted():
    servers = []

    def start(*arguments: object, **options: object) -> Scripted:
        servers.append(Scripted(*arguments, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_servers_take_turns_and_get_the_same_requests_which_no_round_repeats(scripted, tmp_path):
    log: list[tuple[str, dict]] = []
    one, two = scripted("one", log), scripted("two", log)
    bench.main(["single", "--rounds", "2", "--compare", f"one={one.url}", f"two={two.url}/v1", "--json", str(tmp_path / "raw.json")])
    assert [name for name, _ in log] == ["one"] * 8 + ["two"] * 8 + ["one"] * 8 + ["two"] * 8
    bodies = [body for _, body in log]
    assert bodies[:8] == bodies[8:16]
    assert bodies[16:24] == bodies[24:]
    assert not {body["messages"][0]["content"] for body in bodies[:8]} & {body["messages"][0]["content"] for body in bodies[16:24]}
    assert all(len(of) == 2 for of in load(tmp_path / "raw.json").rounds["single"].values())


@pytest.mark.parametrize(("options", "seeds"), [([], set(range(8))), (["--without-seeds"], {None})])
def test_requests_carry_seeds_unless_it_is_told_not_to(scripted, options, seeds):
    log: list[tuple[str, dict]] = []
    bench.main(["single", "--rounds", "1", *options, "--compare", f"one={scripted('one', log).url}"])
    assert {body.get("seed") for _, body in log} == seeds


def test_a_closed_loop_holds_as_many_requests_open_as_it_has_clients(scripted):
    server = scripted("one", [])
    measured = asyncio.run(bench.measure(Server("one", server.url, "any"), "distinct", "seed", "label"))
    assert (len(measured.answers), figures.failures([measured])) == (60, [])
    assert 1 < server.most_open <= 20


def test_answers_that_end_early_are_counted_and_reported_as_the_run_goes(scripted, capsys):
    server = scripted("one", [], short=1)
    bench.main(["single", "--rounds", "1", "--compare", f"one={server.url}"])
    output = capsys.readouterr()
    assert "8 failed: 63 of 64 tokens" in output.err
    assert "one failed 8 times, first: 63 of 64 tokens" in output.out


def test_warm_requests_that_prepare_are_not_among_the_answers(scripted):
    log: list[tuple[str, dict]] = []
    server = scripted("one", log)
    measured = asyncio.run(bench.measure(Server("one", server.url, "any"), "warm", "seed", "label"))
    assert (len(log), len(measured.answers)) == (60, 40)
    assert len({body["messages"][0]["content"] for _, body in log}) == 1


def test_a_stream_that_ends_too_early_fails_its_round_instead_of_hanging(scripted):
    server = scripted("one", [], short=2990)  # far too few tokens for an intrusion
    measured = asyncio.run(bench.measure(Server("one", server.url, "any"), "intrusion", "seed", "label"))
    assert len(figures.failures([measured])) == len(measured.answers) == 8


def test_our_own_service_is_measured_whole(tmp_path):
    with service.Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=4, CONTEXT_LENGTH=32768, ENABLE_LOG_FILE="false") as ours:
        command = [sys.executable, "-m", "tools.bench", "cancel", "intrusion", "conversation", "--rounds", "1", "--model", "echo"]
        command += ["--compare", f"ours={ours.url}", "--json", str(tmp_path / "raw.json")]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    for workload in ("cancel", "intrusion", "conversation"):
        assert f"{workload}, round 1 of 1, ours: " in result.stderr
        assert f"{workload} (1 round): " in result.stdout
    rounds = {workload: of["ours"] for workload, of in load(tmp_path / "raw.json").rounds.items()}
    assert not any(figures.failures(of) for of in rounds.values())
    freed = rounds["cancel"][0].freed
    assert (freed.running_before, freed.running_after) == (20, 10)
    assert freed.kv_after < freed.kv_before
    assert sum(answer.cut is not None for answer in rounds["cancel"][0].answers) == 10
    assert figures.intrusion(rounds["intrusion"])["p99 ratio"] is not None
    turns = figures.conversation(rounds["conversation"])
    assert len(turns) == 20
    assert [turn["prompt"] for turn in turns] == sorted(turn["prompt"] for turn in turns)


# --- the limit


def program(folder: Path, lines: str) -> Path:
    path = folder / "batched-bench"
    path.write_text(f"#!{sys.executable}\n{lines}\n")
    path.chmod(0o755)
    return path


def test_the_limit_counts_completion_tokens_alone(tmp_path):
    line = json.dumps({"n_kv_max": 81920, "pp": 40, "tg": 64, "pl": 20, "t": 8.0})
    found = asyncio.run(limit.measure(program(tmp_path, f"print('loading')\nprint('''{line}''')"), Path("m.gguf"), 2))
    assert (found.requests_per_second, found.tokens_per_second) == (2.5, 160.0)
    assert found.command[1:3] == ["-m", "m.gguf"]


def test_a_limit_without_figures_says_what_the_program_said(tmp_path):
    with pytest.raises(limit.LimitFailed, match=r"ended with 3 .* no such model"):
        asyncio.run(limit.measure(program(tmp_path, "print('no such model')\nraise SystemExit(3)"), Path("m.gguf"), 2))


def test_a_limit_that_is_not_there_says_what_to_give(tmp_path):
    with pytest.raises(limit.LimitFailed, match="Give --limit the path of llama-batched-bench"):
        asyncio.run(limit.measure(tmp_path / "absent", Path("m.gguf"), 2))
