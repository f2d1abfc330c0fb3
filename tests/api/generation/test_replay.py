"""What keeps an answer may itself fail: whoever follows it is told, and the next one finds nothing of it."""

import errno
import time
from collections.abc import Callable

import gevent
import pytest

from src.api.generation.replay import Answer, Recipe, Store
from src.api.generation.replay.answer import Writer
from src.api.generation.replay.log import Log, LogRequest
from src.api.render.base import ResponseOptions
from src.errors import EngineUnavailable, ServiceError
from src.protocol import Delta, Generate, Started, TextPrompt
from src.sampling import SamplingParams
from tests.support.server import wait_until

ROUTE = "/v1/completions"
ASKED = LogRequest(
    model="m", fingerprint="f", request=Generate(prompts=[TextPrompt(text="x")], sampling=SamplingParams(seed=1)), wants=ResponseOptions()
)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, seconds=60, answers=3, size=10_000)


@pytest.fixture
def full(monkeypatch):
    """A disk that takes no more."""

    def append(self: Log, *lines: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Log, "append", append)


SETTLED: list[int] = []  # tokens of answers that have ended


def follow(store: Store, begin: Callable) -> list:
    log, header, is_new = store.open("", "key", ROUTE, "digest", "cmpl-", stream=True)
    assert is_new
    SETTLED.clear()
    recipe = Recipe(begin, lambda request, progress: None, 10_000, 60, hold=lambda: SETTLED.append)
    return list(Answer(log, header, recipe).events(time.monotonic() + 20, None))


def fails(error: Exception) -> Callable:
    def begin():
        raise error

    return begin


def is_forgotten(store: Store) -> bool:
    _, _, is_new = store.open("", "key", ROUTE, "digest", "cmpl-", stream=True)
    return is_new


def test_our_own_mistake_is_an_answer_too(store):
    with pytest.raises(ServiceError) as failure:
        follow(store, fails(KeyError("x")))
    assert (failure.value.status, failure.value.code) == (500, "internal_error")
    assert is_forgotten(store)
    wait_until(lambda: gevent.sleep(0) or SETTLED == [0], 5, "the place to be given back")


@pytest.mark.parametrize("error", [EngineUnavailable("x"), OSError(errno.ENOSPC, "full"), KeyError("x")], ids=repr)
@pytest.mark.usefixtures("full")
def test_a_full_disk_is_told_to_who_follows(store, error):
    with pytest.raises(EngineUnavailable, match="Ask again"):
        follow(store, fails(error))
    assert is_forgotten(store)


def test_a_failure_is_told_as_it_was(store):
    with pytest.raises(ServiceError) as failure:
        follow(store, fails(EngineUnavailable("no runner", retry_after=7)))
    assert (failure.value.code, failure.value.retry_after) == ("engine_unavailable", 7)
    assert is_forgotten(store)


class Endless:
    """A generation that does not end by itself."""

    tokens_used = 7

    def __iter__(self):
        yield Started(prompt_tokens=1, cached_tokens=0, queue_seconds=0)
        while True:
            yield Delta(text="x" * 500)

    def close(self) -> None: ...


def test_an_answer_that_becomes_too_large_ends_with_an_error_and_leaves_its_room_to_others(store):
    for _ in range(2):
        with pytest.raises(ServiceError, match="IDEMPOTENCY_MAX_BYTES allows 20000 bytes") as failure:
            follow(store, lambda: (Endless(), ASKED))
        assert failure.value.param == "Idempotency-Key"
        wait_until(lambda: gevent.sleep(0) or (7 in SETTLED and not Writer._growing), 5, "the place to be given back")
