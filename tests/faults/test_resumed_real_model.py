"""Twenty streams of a real model, whose runner is killed again and again, say what they say undisturbed."""

import os
import signal
import threading

import pytest

from tests.support.answers import Answer, Crowd, ask
from tests.support.server import Server, wait_until

pytestmark = pytest.mark.slow

MODEL = "smollm2-135m"
STREAMS, TOKENS = 20, int(os.environ.get("RESUME_TOKENS", "60"))
KILL_EVERY = int(os.environ.get("RESUME_KILL_EVERY", "25"))  # tokens of the stream that is ahead
NEAR_TIE = 0.4  # see tests/support/llamacpp_greedy.py


def fields(number: int) -> dict:
    """Every kind of request: greedy and sampled, of two choices, with logprobs, with stop strings."""
    kind = {
        "temperature": 0 if number % 2 else 0.8,
        "seed": number,
        "max_tokens": TOKENS,
        "model": MODEL,
        "top_logprobs": 5,
        "logprobs": True,
    }
    if number % 5 == 2:
        kind |= {"n": 2}
    if number % 5 == 3:
        kind |= {"stop": ["the house was", ". T", "zzz"]}
    return kind | {"extra_body": {"ignore_eos": True}}


class Tokens:
    """Counts what the stream that is ahead has said."""

    def __init__(self) -> None:
        self.most = 0
        self._lock = threading.Lock()

    def counter(self):
        said = 0

        def count() -> None:
            nonlocal said
            said += 1
            with self._lock:
                self.most = max(self.most, said)

        return count


def run(server: Server, kills: list[int]) -> list[Answer]:
    tokens = Tokens()
    with Crowd() as crowd:
        answers = [
            crowd.ask(server, f"Tell a story about the house number {i}.", on_text=tokens.counter(), **fields(i)) for i in range(STREAMS)
        ]
        for at in kills:
            wait_until(lambda at=at: tokens.most >= at, timeout=5 * TOKENS, what=f"token {at}")
            victim = server.pids("runner")[0]
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda victim=victim: server.pids("runner") not in ([], [victim]), timeout=100, what="the next runner")
        return [answer.result() for answer in answers]


def assert_same(whole: Answer, cut: Answer, greedy: bool) -> None:
    """Word for word; where the kernels of this machine compute otherwise in another batch, up to a near tie."""
    assert cut.error is None
    for index, text in whole.texts.items():
        if cut.texts[index] == text:
            assert cut.reasons[index] == whole.reasons[index]
            assert [token for token, _ in cut.logprobs[index]] == [token for token, _ in whole.logprobs[index]]
            continue
        pairs = zip(whole.logprobs[index], cut.logprobs[index], strict=False)
        (token, logprob), (other, other_logprob) = next(pair for pair in pairs if pair[0][0] != pair[1][0])
        assert greedy, f"{token!r} and {other!r} were drawn with the same seed"
        assert abs(logprob - other_logprob) < NEAR_TIE, f"{token!r} became {other!r}"
    if cut.texts == whole.texts:
        assert cut.usage == whole.usage


@pytest.mark.timeout(10 * TOKENS)
def test_streams_of_a_runner_that_is_killed_every_so_many_tokens_are_those_of_one_that_lives():
    with Server(CONTEXT_LENGTH=512, MAX_PARALLEL_SEQUENCES=STREAMS + 4, CACHE_SIZE=0) as server:
        whole = run(server, [])
        assert sum(len(answer.logprobs[0]) for answer in whole) > 0.7 * STREAMS * TOKENS
        kills = list(range(KILL_EVERY, TOKENS, KILL_EVERY))
        cut = run(server, kills)
        assert server.status()["models"][0]["restarts"] == len(kills)
        # Do this machine's kernels compute a sequence alone as they do among twenty?
        alone = [ask(server, f"Tell a story about the house number {number}.", **fields(number)) for number in range(2)]
        exact = all(one.texts == many.texts for one, many in zip(alone, whole, strict=False))
        for number, (one, other) in enumerate(zip(whole, cut, strict=True)):
            sampled = fields(number)["temperature"] > 0
            if exact or not sampled:  # else another draw is as right
                assert_same(one, other, greedy=not sampled)
