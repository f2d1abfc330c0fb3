"""The file of a kept answer: whatever its writer died in the middle of, what is read is whole; and the folder stays small."""

import hashlib
import os
import time

import pytest

from src.api.render import Wants
from src.api.replay.log import Asked, Log, Opened
from src.api.replay.store import Store
from src.errors import IdempotencyKeyReused, NotFound
from src.protocol import Delta, Ended, Finished, Generate, Started, TextPrompt, encode
from src.sampling import SamplingParams

OPENED = Opened(id="cmpl-1", created=1, owner="", digest="d", route="/v1/completions", stream=True)
ASKED = Asked(model="m", fingerprint="f", request=Generate(prompts=[TextPrompt(text="x")], sampling=SamplingParams(seed=1)), wants=Wants())
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


def ended(store: Store, key: str, owner: str = "", size: int = 0) -> Opened:
    """An answer that is through."""
    log, opened, is_new = store.open(owner, key, "/v1/completions", "digest", "cmpl-", True)
    if is_new:
        log.take_over()
        log.append(Delta(text="x" * size))
        log.release()
    log.close()
    return opened


def kept(store: Store, keys: list[str]) -> list[str]:
    """The keys whose answers are there."""
    store._tidied_at = -1e9
    ids = {folder.name for folder in store._folder.iterdir()}
    return [key for key in keys if ended_id(store, key) in ids]


def ended_id(store: Store, key: str) -> str:
    return hashlib.sha256(f"\0{key}".encode()).hexdigest()[:24]


def age(store: Store, key: str, seconds: float) -> None:
    path = store._folder / ended_id(store, key) / "log"
    os.utime(path, (time.time() - seconds, time.time() - seconds))


def test_an_answer_is_found_by_its_key_and_its_id_and_only_by_who_asked(tmp_path):
    store = Store(tmp_path / "kept", 600, 100, 10**6)
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
    store = Store(tmp_path / "kept", 600, 100, 10**6)
    first = ended(store, "old")
    age(store, "old", 601)
    assert ended(store, "old").id != first.id
    age(store, "old", 601)
    store._tidied_at = -1e9
    ended(store, "new")
    assert kept(store, ["old", "new"]) == ["new"]


def test_of_too_many_or_too_large_answers_the_oldest_go(tmp_path):
    for bounds in ((600, 3, 10**6), (600, 100, 5000)):
        store = Store(tmp_path / str(bounds[1]), *bounds)
        keys = [f"k{number}" for number in range(6)]
        for number, key in enumerate(keys):
            store._tidied_at = -1e9
            ended(store, key, size=1000)
            age(store, key, 100 - number)
        store._tidied_at = -1e9
        ended(store, "last")
        assert 1 <= len(kept(store, keys)) <= 4
        assert kept(store, keys) == keys[-len(kept(store, keys)) :]


def test_one_that_is_being_written_is_never_forgotten(tmp_path):
    store = Store(tmp_path / "kept", 0, 0, 0)
    log, _, _ = store.open("", "running", "/v1/completions", "digest", "cmpl-", True)
    log.take_over()
    age(store, "running", 1000)
    store._tidied_at = -1e9
    ended(store, "other")
    assert kept(store, ["running"]) == ["running"]
    log.release()
    log.close()
