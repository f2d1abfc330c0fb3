"""The file of a kept answer: whatever its writer died in the middle of, what is read is whole; and the folder stays small."""

import hashlib
import itertools
import os
import time
from pathlib import Path

import pytest

from src.api.generation.replay import log as module
from src.api.generation.replay.log import Log, LogHeader, LogRequest
from src.api.generation.replay.store import TIDY_SECONDS, Store
from src.api.render.base import ResponseOptions
from src.errors import IdempotencyKeyReused, InvalidValue, NotFound, TooManyRequests
from src.protocol import Delta, Ended, Finished, Generate, Started, TextPrompt, encode
from src.sampling import SamplingParams

OPENED = LogHeader(id="cmpl-1", created=1, owner="", digest="d", route="/v1/completions", stream=True)
ASKED = LogRequest(
    model="m", fingerprint="f", request=Generate(prompts=[TextPrompt(text="x")], sampling=SamplingParams(seed=1)), wants=ResponseOptions()
)
LINES = [
    ASKED,
    Started(prompt_tokens=1, cached_tokens=0, queue_seconds=0),
    Delta(text="ä\u2028b", tokens=[1, 2]),
    Delta(text="c", tokens=[3], last=True),
    Ended(reason="stop"),
    Finished(prompt_tokens=1, completion_tokens=3, cached_tokens=0),
]


@pytest.fixture
def log(tmp_path):
    assert Log.create(tmp_path / "a", OPENED)
    log = Log(tmp_path / "a")
    yield log
    log.close()


def test_a_log_cut_at_every_byte_is_read_up_to_its_last_whole_event(log, tmp_path):
    assert log.take_over()
    log.append(*LINES)
    whole = (tmp_path / "a" / "log").read_bytes()
    ends = [len(encode(OPENED))]
    for line in LINES:
        ends.append(ends[-1] + len(encode(line)))
    for cut in range(ends[0], len(whole) + 1):
        Log.create(folder := tmp_path / f"cut-{cut}", OPENED)
        (folder / "log").write_bytes(whole[:cut])
        copy = Log(folder)
        expected = [OPENED, *LINES][: sum(end <= cut for end in ends)]
        if isinstance(expected[-1], Delta) and expected[-1].last:
            expected.pop()  # its Ended is missing: a writer that goes on will say it again
        assert copy.read() == expected
        assert copy.cut_to_whole() == expected
        assert copy.take_over()
        copy.append(*LINES[len(expected) - 1 :])
        assert (folder / "log").read_bytes() == whole
        copy.release()
        copy.close()


def test_a_reader_gets_each_line_once(log, tmp_path):
    reader = Log(tmp_path / "a")
    log.take_over()
    assert reader.read() == [OPENED]
    for line in LINES[:3]:
        log.append(line)
        assert reader.read() == [line]
        assert reader.read() == []
    reader.close()


@pytest.mark.parametrize("piece", [1, 50, 300])
def test_a_long_log_is_read_piece_by_piece(log, tmp_path, piece, monkeypatch):
    monkeypatch.setattr(module, "PIECE", piece)
    assert log.take_over()
    log.append(*LINES)
    reader = Log(tmp_path / "a")
    found = [reader.read() for _ in range(len(LINES) + 1)]
    assert len([lines for lines in found if lines]) >= 2
    assert [line for lines in found for line in lines] == [OPENED, *LINES]
    reader.close()


def test_a_log_tells_by_its_last_line_whether_its_answer_is_whole(log):
    assert log.take_over()
    assert not log.has_ended()
    for line in LINES[:-1]:
        log.append(line)
        assert not log.has_ended()
    log.append(Delta(text="x" * 5000))
    assert not log.has_ended()
    log.append(LINES[-1])
    assert log.has_ended()


def test_of_two_writers_one_writes(log, tmp_path):
    other = Log(tmp_path / "a")
    assert other.is_orphaned()
    assert log.take_over()
    assert not other.take_over()
    assert not other.is_orphaned()
    log.release()
    assert other.take_over()
    other.close()


def test_the_writer_sees_whether_anybody_reads(log, tmp_path):
    reader = Log(tmp_path / "a")
    assert not log.has_readers()
    with reader.reading():
        assert log.has_readers()
    assert not log.has_readers()
    reader.close()


def test_a_log_is_made_once(log, tmp_path):
    assert not Log.create(tmp_path / "a", OPENED)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def store_in(folder: Path, seconds: float = 600, answers: int = 100, size: int = 10**6) -> Store:
    """One that tidies up at each opening."""
    return Store(folder, seconds, answers, size, clock=itertools.count(0, TIDY_SECONDS).__next__)


def ended(store: Store, key: str, owner: str = "", size: int = 0) -> LogHeader:
    """An answer that is through."""
    log, opened, is_new = store.open(owner, key, "/v1/completions", "digest", "cmpl-", True)
    if is_new:
        log.take_over()
        log.append(Delta(text="x" * size))
        log.release()
    log.close()
    return opened


def name_of(key: str) -> str:
    return hashlib.sha256(b"").hexdigest()[:8] + hashlib.sha256(f"\0{key}".encode()).hexdigest()[:16]


def kept(folder: Path, keys: list[str]) -> list[str]:
    """The keys whose answers are there."""
    names = {path.name for path in folder.iterdir()}
    return [key for key in keys if name_of(key) in names]


def age(folder: Path, key: str, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(folder / name_of(key) / "log", (then, then))


def test_an_answer_is_found_by_its_key_and_its_id_and_only_by_who_asked(tmp_path):
    store = store_in(tmp_path)
    opened = ended(store, "k", owner="ann")
    again = ended(store, "k", owner="ann")
    assert again == opened
    assert ended(store, "k", owner="bob").id != opened.id
    log, found = store.find(opened.id, "ann", "/v1/completions")
    log.close()
    assert found == opened
    for id, owner, route in ((opened.id, "bob", "/v1/completions"), (opened.id, "ann", "/v1/chat"), ("cmpl-" + "0" * 32, "ann", "")):
        with pytest.raises(NotFound):
            store.find(id, owner, route)
    with pytest.raises(IdempotencyKeyReused):
        store.open("ann", "k", "/v1/completions", "another", "cmpl-", True)


def test_old_answers_are_forgotten(tmp_path):
    store = store_in(tmp_path)
    first = ended(store, "old")
    age(tmp_path, "old", 601)
    assert ended(store, "old").id != first.id
    age(tmp_path, "old", 601)
    ended(store, "new")
    assert kept(tmp_path, ["old", "new"]) == ["new"]


def test_of_too_many_or_too_large_answers_the_oldest_go(tmp_path):
    for bounds in ((600, 3, 10**6), (600, 100, 5000)):
        store = store_in(folder := tmp_path / str(bounds[1]), *bounds)
        keys = [f"k{number}" for number in range(6)]
        for number, key in enumerate(keys):
            ended(store, key, size=1000)
            age(folder, key, 100 - number)
        ended(store, "last")
        assert 1 <= len(kept(folder, keys)) <= 4
        assert kept(folder, keys) == keys[-len(kept(folder, keys)) :]


def test_one_that_is_being_written_is_never_forgotten(tmp_path):
    store = store_in(tmp_path, 0, 0, 10_000)
    log, _, _ = store.open("", "running", "/v1/completions", "digest", "cmpl-", True)
    log.take_over()
    age(tmp_path, "running", 1000)
    ended(store, "other")
    assert kept(tmp_path, ["running"]) == ["running"]
    log.release()
    log.close()


def running(store: Store, key: str, owner: str, size: int) -> Log:
    log, _, is_new = store.open(owner, key, "/v1/completions", "digest", "cmpl-", True, request_bytes=size)
    assert is_new
    assert log.take_over()
    return log


def test_who_keeps_most_loses_its_own_first(tmp_path):
    for bounds in ((600, 4, 10**6), (600, 100, 4800)):
        store = store_in(folder := tmp_path / str(bounds[1]), *bounds)
        first = ended(store, "order-17", owner="alice", size=1000)
        for number in range(10):
            ended(store, f"k{number}", owner="hog", size=1000)
            for path in folder.iterdir():
                os.utime(path / "log", (time.time() - 100 + number,) * 2 if path.name != first.id[5:29] else (time.time() - 200,) * 2)
        assert ended(store, "order-17", owner="alice", size=1000) == first


def test_requests_of_answers_that_still_run_count_and_half_is_the_most_for_one_owner(tmp_path):
    store = store_in(tmp_path, size=10_000)
    logs = [running(store, f"k{number}", "hog", 2400) for number in range(2)]
    with pytest.raises(TooManyRequests, match="IDEMPOTENCY_MAX_BYTES") as refused:
        running(store, "k2", "hog", 2400)
    assert refused.value.retry_after == 1
    logs += [running(store, f"k{number}", "alice", 2400) for number in range(2)]
    with pytest.raises(TooManyRequests):
        running(store, "k", "bob", 2400)
    for log in logs:
        log.release()
        log.close()
    for path in tmp_path.iterdir():
        os.utime(path / "log", (time.time() - 100,) * 2)
    running(store, "k", "bob", 2400).close()


def test_a_request_that_never_fits_is_not_told_to_come_again(tmp_path):
    with pytest.raises(InvalidValue, match="IDEMPOTENCY_MAX_BYTES"):
        running(store_in(tmp_path, size=10_000), "k", "", 5001)


def test_what_still_runs_leaves_less_room_for_what_has_ended(tmp_path):
    store = store_in(tmp_path, size=10_000)
    ended(store, "old", size=6000)
    age(tmp_path, "old", 100)
    log = running(store, "k", "bob", 4500)
    ended(store, "next")
    assert kept(tmp_path, ["old"]) == []
    log.close()
