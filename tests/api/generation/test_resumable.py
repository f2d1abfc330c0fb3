"""One request over runners and managers that die, close, vanish or change: its events are those of one answer, and it ends."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from src.api.generation import resumable
from src.api.generation.progress import Progress
from src.api.generation.resumable import FRUITLESS_TRIES, Caller, ResumableGeneration
from src.client import retry
from src.client.exchange import Exchange
from src.client.manager import ManagerClient
from src.errors import ClientGone, EngineCrashed, EngineUnavailable, ModelNotFound, RequestTimeout, ServerShuttingDown, ServiceError
from src.protocol import (
    Delta,
    Ended,
    Failed,
    Finished,
    Generate,
    ManagerRequest,
    ModelReady,
    Quarantined,
    Resolve,
    Started,
    TextPrompt,
    encode,
)
from src.sampling import SamplingParams
from tests.support.machine import Machine, says
from tests.support.peer import Peer, sends, soon, stays_silent, then_silent
from tests.support.server import wait_until

REQUEST = Generate(prompts=[TextPrompt(text="x")], sampling=SamplingParams(seed=1))
STARTED = Started(prompt_tokens=1, cached_tokens=0, queue_seconds=0)
A, B = Delta(text="a", tokens=[97]), Delta(text="b", tokens=[98])
FINISHED = Finished(prompt_tokens=1, completion_tokens=2, cached_tokens=0)
WHOLE = [STARTED, A, B, Ended(reason="stop"), FINISHED]
CRASH = "signal SIGSEGV"


@pytest.fixture(autouse=True)
def nothing_left_open():
    yield
    assert Exchange.open == set()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(resumable, "NOTICE_SECONDS", 0.2)


@contextlib.contextmanager
def started(machine: Machine, **fields: object) -> Iterator[ResumableGeneration]:
    generation = ResumableGeneration.start(machine.caller(), "m", lambda ready: REQUEST, **fields)
    with contextlib.closing(generation):
        yield generation


@pytest.mark.parametrize("cut", range(5))
def test_a_runner_that_dies_after_any_event_is_continued_by_the_next(tmp_path, cut):
    resumed = [STARTED, *WHOLE[max(1, cut) :]]
    seen = []
    with Machine(tmp_path, [says(*WHOLE[:cut]), says(*resumed)]) as machine, started(machine, observe=seen.append) as generation:
        events = list(generation)
    assert [event for event in events if not isinstance(event, Finished)] == WHOLE[:-1]
    assert isinstance(events[-1], Finished)
    assert seen == events, "the observer gets each event once"
    tokens = [token for event in WHOLE[:cut] if isinstance(event, Delta) for token in event.tokens]
    assert machine.requests == [REQUEST, replace(REQUEST, resume=[tokens] if tokens else [])]
    assert generation.ready == machine.ready(1)
    assert generation.request == REQUEST


def test_what_a_runner_is_asked_depends_on_the_runner(tmp_path):
    def request_for(ready: ModelReady) -> Generate:
        return replace(REQUEST, key=ready.model)

    with Machine(tmp_path, [says(*WHOLE)]) as machine:
        generation = ResumableGeneration.start(machine.caller(), "alias", request_for, among=["m"])
        assert list(generation) == WHOLE
        generation.close()
        generation.close()
    assert machine.requests == [replace(REQUEST, key="m")]
    assert machine.resolved == [Resolve(model="alias", among=("m",))]


def test_a_runner_that_only_closed_the_connection_is_asked_again_once_a_death_would_have_been_noticed(tmp_path):
    answers = [says(STARTED, A), says(STARTED, B, *WHOLE[3:])]
    began = time.monotonic()
    with Machine(tmp_path, [None]) as machine:
        peer = Peer(tmp_path / "0.sock", lambda connection: answers.pop(0)(connection))
        with peer, started(machine) as generation:
            assert [event.text for event in generation if isinstance(event, Delta)] == ["a", "b"]
        assert time.monotonic() - began >= resumable.NOTICE_SECONDS
        assert peer.requests == [REQUEST, replace(REQUEST, resume=[[97]])]


def test_runners_that_all_die_without_a_token_are_given_up(tmp_path):
    runners = [says(STARTED)] * (FRUITLESS_TRIES + 2)
    with (
        Machine(tmp_path, runners) as machine,
        started(machine) as generation,
        pytest.raises(EngineUnavailable, match="ended while it worked"),
    ):
        list(generation)
    assert len(machine.requests) == FRUITLESS_TRIES + 1


def test_runners_that_die_with_a_token_each_are_not(tmp_path):
    runners = [says(STARTED, A)] * (2 * FRUITLESS_TRIES)
    with Machine(tmp_path, [*runners, says(STARTED, *WHOLE[3:])]) as machine, started(machine) as generation:
        events = list(generation)
    assert [event for event in events if isinstance(event, Delta)] == [A] * len(runners)


def test_a_runner_that_is_not_there_yet_is_waited_for(tmp_path):
    late = []
    binding = threading.Timer(0.5, lambda: late.append(Peer(tmp_path / "0.sock", says(*WHOLE)).__enter__()))
    with Machine(tmp_path, [None]) as machine:
        binding.start()
        with started(machine) as generation:
            assert list(generation) == WHOLE
        late[0].__exit__()


def test_a_runner_whose_places_are_all_taken_is_tried_until_there_is_one(tmp_path, monkeypatch):
    """macOS refuses at once where Linux has a client wait, and has 128 places where Linux has 4,096."""
    monkeypatch.setattr(retry, "LONGEST_PAUSE", 0.02)
    late = []
    with Machine(tmp_path, [None]) as machine, socket.socket(socket.AF_UNIX) as full:
        full.bind(str(tmp_path / "0.sock"))  # and does not listen: whoever connects is refused

        def make_room() -> None:
            wait_until(lambda: len(machine.resolved) > 25, what="more tries than any bound on their number")
            (tmp_path / "0.sock").unlink()
            late.append(Peer(tmp_path / "0.sock", says(*WHOLE)).__enter__())

        waiting = threading.Thread(target=make_room)
        waiting.start()
        with started(machine) as generation:
            assert list(generation) == WHOLE
        waiting.join()
        late[0].__exit__()


def test_only_the_deadline_ends_the_wait_for_a_runner_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(retry, "LONGEST_PAUSE", 0.02)  # more tries than any bound on their number
    began = time.monotonic()
    with Machine(tmp_path, [None]) as machine, pytest.raises(EngineUnavailable, match="cannot be reached"):
        ResumableGeneration.start(machine.caller(began + 1), "m", lambda ready: REQUEST)
    assert 1 <= time.monotonic() - began < 5
    assert len(machine.resolved) > 20


def test_the_deadline_ends_an_answer(tmp_path):
    with Machine(tmp_path, [then_silent(lambda: None)]) as machine:
        generation = ResumableGeneration.start(machine.caller(time.monotonic() + 0.3), "m", lambda ready: REQUEST)
        with pytest.raises(RequestTimeout):
            list(generation)
        generation.close()


def test_a_client_that_hangs_up_while_there_is_no_runner_is_noticed(tmp_path):
    ours, its = socket.socketpair()
    hangs_up = threading.Timer(0.3, its.close)
    hangs_up.start()
    with ours, Machine(tmp_path, [None]) as machine, pytest.raises(ClientGone):
        ResumableGeneration.start(machine.caller(client=ours), "m", lambda ready: REQUEST)
    hangs_up.join()


def test_a_client_that_hangs_up_between_two_runners_is_noticed(tmp_path):
    ours, its = socket.socketpair()
    with ours, Machine(tmp_path, [says(STARTED, A), None]) as machine:
        generation = ResumableGeneration.start(machine.caller(client=ours), "m", lambda ready: REQUEST)
        events = iter(generation)
        assert [next(events), next(events)] == [STARTED, A]
        its.close()
        with pytest.raises(ClientGone):
            next(events)
        generation.close()


def test_a_shutdown_ends_the_wait_for_a_runner_too(tmp_path, monkeypatch):
    monkeypatch.setattr(Exchange, "refusal", None)
    stops = threading.Timer(0.3, lambda: Exchange.refuse_all(lambda: ServerShuttingDown("stopping")))
    stops.start()
    with Machine(tmp_path, [None]) as machine, pytest.raises(ServerShuttingDown):
        ResumableGeneration.start(machine.caller(), "m", lambda ready: REQUEST)
    stops.join()


def test_a_request_that_forbids_itself_is_not_tried_again(tmp_path):
    def request_for(ready: ModelReady) -> Generate:
        raise ModelNotFound("no")

    with Machine(tmp_path, [None]) as machine, pytest.raises(ModelNotFound):
        ResumableGeneration.start(machine.caller(), "m", request_for)
    assert len(machine.resolved) == 1


def test_an_answer_that_has_begun_is_not_continued_by_another_version_of_the_model(tmp_path):
    with Machine(tmp_path, [says(STARTED, A), says(*WHOLE)], fingerprints="fg") as machine, started(machine) as generation:
        events = iter(generation)
        assert [next(events), next(events)] == [STARTED, A]
        with pytest.raises(EngineUnavailable, match="has changed since"):
            next(events)
    assert len(machine.requests) == 1


def test_an_answer_that_has_not_begun_may_come_from_another_version(tmp_path):
    with Machine(tmp_path, [says(STARTED), says(*WHOLE)], fingerprints="fg") as machine, started(machine) as generation:
        assert list(generation)[:-1] == WHOLE[:-1]
    assert machine.requests == [REQUEST, REQUEST]


def test_the_runners_failure_is_final(tmp_path):
    runner = says(STARTED, Failed.of(ModelNotFound("no")))
    with Machine(tmp_path, [runner]) as machine, started(machine) as generation, pytest.raises(ServiceError, match="no"):
        list(generation)
    assert len(machine.requests) == 1


def test_the_request_in_quarantine_at_the_second_crash_has_crashed_the_engine(tmp_path):
    runners = [says(STARTED, A), says(Quarantined(open=True), STARTED), says(*WHOLE)]
    exits = [None, CRASH, CRASH]
    with Machine(tmp_path, runners, exits) as machine, started(machine) as generation, pytest.raises(EngineCrashed, match=CRASH):
        list(generation)
    assert [request.crashes for request in machine.requests] == [0, 1]


def test_a_runner_that_never_had_the_request_is_nobodys_fault(tmp_path):
    """The second is gone before it takes the request: that death is not counted against it."""
    runners = [says(STARTED, A), None, says(STARTED, B, *WHOLE[3:])]
    with Machine(tmp_path, runners, [None, CRASH, CRASH]) as machine:
        dies = threading.Timer(0.5, lambda: setattr(machine, "_now", 2))
        with started(machine) as generation:
            dies.start()
            assert len(list(generation)) == len(WHOLE)
    assert [request.crashes for request in machine.requests] == [0, 1]


def test_what_another_process_began_is_continued_by_whatever_runner_there_is(tmp_path):
    progress = Progress(REQUEST)
    for event in WHOLE[:2]:
        progress.push(event)
    with Machine(tmp_path, [says(STARTED, *WHOLE[2:])], [CRASH]) as machine:
        generation = ResumableGeneration.resume(machine.caller(), "m", "f", progress)
        assert [type(event) for event in generation] == [Delta, Ended, Finished]
        generation.close()
    assert machine.requests == [replace(REQUEST, resume=[[97]])], "nobody is blamed for a death before"


@pytest.mark.parametrize("deaths", [retry.MAX_LOST, retry.MAX_LOST + 1])
def test_managers_that_die_over_the_question_are_asked_again_but_not_for_ever(tmp_path, deaths):
    ready = ModelReady(model="m", socket=str(tmp_path / "runner.sock"), engine="echo", fingerprint="f", pid=1)
    answers = [sends()] * deaths + [sends(encode(ready))]
    with (
        Peer(tmp_path / "manager.sock", lambda connection: answers.pop(0)(connection), ManagerRequest) as manager,
        Peer(tmp_path / "runner.sock", says(*WHOLE)),
    ):
        caller = Caller(ManagerClient(manager.path), soon(), None)
        if deaths > retry.MAX_LOST:
            with pytest.raises(EngineUnavailable):
                ResumableGeneration.start(caller, "m", lambda ready: REQUEST)
            return
        generation = ResumableGeneration.start(caller, "m", lambda ready: REQUEST)
        assert list(generation) == WHOLE
        generation.close()


def test_a_request_that_is_closed_is_cancelled(tmp_path):
    cancelled = threading.Event()

    def answer(connection: socket.socket) -> None:
        stays_silent(connection)
        cancelled.set()

    with Machine(tmp_path, [answer]) as machine:
        with started(machine):
            assert not cancelled.is_set()
        assert cancelled.wait(10)
