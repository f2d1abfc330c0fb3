"""What keeps an answer may itself fail: whoever follows it is told, and the next one finds nothing of it."""

import errno
import time
from collections.abc import Callable

import pytest

from src.api.replay import Answer, Store
from src.api.replay.log import Log
from src.errors import EngineUnavailable, ServiceError

ROUTE = "/v1/completions"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, seconds=60, answers=3, size=10_000)


@pytest.fixture
def full(monkeypatch):
    """A disk that takes no more."""

    def append(self: Log, *lines: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Log, "append", append)


def follow(store: Store, begin: Callable) -> list:
    log, opened, is_new = store.open("", "key", ROUTE, "digest", "cmpl-", stream=True)
    assert is_new
    return list(Answer(log, opened, begin, lambda asked, progress: None, 60).events(time.monotonic() + 20, None))


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
