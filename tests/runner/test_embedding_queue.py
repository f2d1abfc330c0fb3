"""Whose input is embedded next: keys take turns, and within a key its requests."""

from collections.abc import Generator

from src.engines.echo import EchoEngine, EchoOptions
from src.runner.embedding_queue import EmbeddingQueue

ENGINE = EchoEngine(EchoOptions(model_path="", context_length=16, max_sequences=1))


def queue_of(*requests: tuple[int, str, int]) -> EmbeddingQueue:
    """Of (id, key, number of inputs)."""
    queue = EmbeddingQueue()
    for request_id, key, inputs in requests:
        queue.add(request_id, ENGINE, [[1]] * inputs, key)
    return queue


def order(queue: EmbeddingQueue) -> Generator[int, None, None]:
    """Ids of requests in the order of their vectors."""
    while queue:
        if vector := queue.advance():
            yield vector.request_id


def test_a_key_with_many_requests_has_as_many_turns_as_one_with_a_single_one():
    queue = queue_of(*((number, "greedy", 3) for number in range(5)), (9, "modest", 2))
    assert list(order(queue))[:4] == [0, 9, 1, 9]


def test_the_requests_of_a_key_take_turns():
    assert list(order(queue_of((1, "a", 2), (2, "a", 1), (3, "a", 2)))) == [1, 2, 3, 1, 3]


def test_a_request_that_is_forgotten_has_no_turn_any_more():
    queue = queue_of((1, "a", 2), (2, "a", 1), (3, "b", 1))
    queue.cancel(1)
    queue.cancel(3)
    queue.cancel(7)
    assert list(order(queue)) == [2]
