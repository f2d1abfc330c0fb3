"""Questions to the manager: each is asked in its own words, and again where the manager is gone, but not for ever."""

import socket
import threading
import time
from collections.abc import Generator

import pytest

from src.client import exchange, manager, retry
from src.client.manager import ManagerClient
from src.errors import ClientGone, EngineUnavailable, ModelLoading, ServiceError
from src.protocol import AskPlan, AskStatus, Failed, Load, LoadProgress, ManagerRequest, ModelPlan, ModelReady, Resolve, encode
from tests.client.test_exchange import READY, STATUS
from tests.support.peer import Peer, sends, soon, stays_silent, then_silent

PLAN = ModelPlan(model="m", fits=True, engines={})


def last_of(steps: Generator[None, None, ModelReady]) -> ModelReady:
    try:
        while True:
            assert next(steps) is None
    except StopIteration as end:
        return end.value


def test_the_manager_is_asked_in_its_own_words(path):
    answers = {
        Resolve(model=None): READY,
        Resolve(model="m", among=("m", "n")): READY,
        Load(model="m"): READY,
        AskStatus(detail=True): STATUS,
    }

    def answer(connection: socket.socket) -> None:
        connection.sendall(encode(answers[peer.requests[-1]]))

    with Peer(path, answer, ManagerRequest) as peer:
        client = ManagerClient(peer.path)
        assert last_of(client.resolve(None, soon())) == READY
        assert last_of(client.resolve("m", soon(), among=["m", "n"])) == READY
        assert client.load("m", soon()) == READY
        assert client.status(detail=True) == STATUS
    assert peer.requests == list(answers)


def test_the_managers_failure_is_raised(path):
    with (
        Peer(path, sends(encode(Failed.of(ModelLoading("wait")))), ManagerRequest) as peer,
        pytest.raises(ServiceError, match="wait") as caught,
    ):
        ManagerClient(peer.path).load("m", soon())
    assert caught.value.code == "model_loading"


def test_a_manager_that_answers_late_is_waited_for(path, monkeypatch):
    monkeypatch.setattr(exchange, "IDLE_SECONDS", 0.01)
    speak = threading.Event()

    def answer(connection: socket.socket) -> None:
        assert speak.wait(10)
        connection.sendall(encode(READY))

    with Peer(path, answer, ManagerRequest) as peer:
        steps = ManagerClient(peer.path).resolve("m", soon())
        assert next(steps) is None
        speak.set()
        assert last_of(steps) == READY


def test_a_manager_that_is_still_starting_is_waited_for(path):
    bound = []
    starting = threading.Timer(0.2, lambda: bound.append(Peer(path, sends(encode(READY)), ManagerRequest).__enter__()))
    starting.start()
    try:
        assert ManagerClient(str(path)).load("m", soon()) == READY
    finally:
        starting.join()
        bound[0].__exit__()


@pytest.mark.parametrize("deaths", [1, retry.MAX_LOST, retry.MAX_LOST + 1])
def test_a_question_over_which_the_manager_died_is_asked_again_but_not_for_ever(path, deaths):
    """Gunicorn's master has started another by then."""
    answers = [sends()] * deaths + [sends(encode(PLAN))]
    with Peer(path, lambda connection: answers.pop(0)(connection), ManagerRequest) as peer:
        if deaths <= retry.MAX_LOST:
            assert ManagerClient(peer.path).plan("m", soon()) == PLAN
        else:
            with pytest.raises(EngineUnavailable):
                ManagerClient(peer.path).plan("m", soon())
    assert peer.requests == [AskPlan(model="m")] * min(deaths + 1, retry.MAX_LOST + 1)


def test_the_progress_of_a_load_goes_on_when_the_manager_died_over_it(path):
    steps = [LoadProgress(model="m", stage=stage, bytes_read=0, bytes_total=1) for stage in ("found", "reading_weights", "ready")]
    answers = [sends(encode(steps[0])), sends(encode(steps[1]), encode(steps[2]), encode(READY))]
    with Peer(path, lambda connection: answers.pop(0)(connection), ManagerRequest) as peer:
        assert list(ManagerClient(peer.path).load_progress("m", soon())) == steps


def test_a_runner_is_asked_for_only_once_where_the_manager_dies_over_it(path):
    with Peer(path, sends(), ManagerRequest) as peer, pytest.raises(EngineUnavailable):
        last_of(ManagerClient(peer.path).resolve("m", soon()))
    assert peer.requests == [Resolve(model="m")]


def test_a_manager_that_cannot_be_reached_is_waited_for_until_the_deadline(path, monkeypatch):
    monkeypatch.setattr(manager, "STATUS_SECONDS", 0.3)
    began = time.monotonic()
    with pytest.raises(EngineUnavailable, match="manager cannot be reached") as caught:
        ManagerClient(str(path)).status()
    assert 0.3 <= time.monotonic() - began < 5
    assert caught.value.retry_after == 5


def test_a_client_that_hangs_up_while_its_model_loads_is_noticed(path, http):
    ours, its = http
    with Peer(path, then_silent(its.close), ManagerRequest) as peer, pytest.raises(ClientGone):
        ManagerClient(peer.path).load("m", soon(), ours)


def test_a_client_that_hangs_up_while_there_is_no_manager_is_noticed(path, http):
    ours, its = http
    hangs_up = threading.Timer(0.2, its.close)
    hangs_up.start()
    with pytest.raises(ClientGone):
        ManagerClient(str(path)).load("m", soon(), ours)
    hangs_up.join()


def test_an_abandoned_question_is_cancelled(path, monkeypatch):
    monkeypatch.setattr(exchange, "IDLE_SECONDS", 0.01)
    with Peer(path, stays_silent, ManagerRequest) as peer:
        steps = ManagerClient(peer.path).resolve("m", soon())
        assert next(steps) is None
        steps.close()
