"""One answer as it is written: which logprobs belong to the text that is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.engines.base import Logprobs, Step
from src.protocol import Generate, TextPrompt
from src.runner.choice import Choice
from src.sampling import SamplingParams
from src.text.channels import PlainText
from src.text.tokenizer import ByteTokenizer

TEXT = st.text(alphabet="ab é😀", max_size=12)
STOPS = st.lists(st.text(alphabet="ab é😀", min_size=1, max_size=3), max_size=3)


def write(text: str, stops: list[str], *, take_each: bool, include_stop: bool = False) -> tuple[str, bytes]:
    """The text said of an answer, and the bytes of the tokens whose logprobs were told."""
    request = Generate(prompts=[TextPrompt(text="")], sampling=SamplingParams(seed=1, logprobs=0), stop=stops, include_stop=include_stop)
    choice = Choice(0, request, ByteTokenizer(), PlainText())
    deltas = []
    for token in [*text.encode(), ByteTokenizer.END]:
        finish = "stop" if token == ByteTokenizer.END else None
        choice.push(Step(job_id=1, token=token, logprobs=Logprobs(-1.0, []), finish=finish))
        if take_each:
            deltas.append(choice.take())
        if choice.finish:
            break
    deltas = [delta for delta in [*deltas, choice.take()] if delta]
    told = [byte for delta in deltas for entry in delta.logprobs for byte in entry.bytes]
    return "".join(delta.text for delta in deltas), bytes(told)


@given(TEXT, STOPS, st.booleans(), st.booleans())
def test_logprobs_are_told_of_the_tokens_of_the_text_and_of_no_others(text, stops, take_each, include_stop):
    said, told = write(text, stops, take_each=take_each, include_stop=include_stop)
    assert told.decode() == said


def test_a_held_back_token_is_told_with_its_text():
    assert write("abx", ["abc"], take_each=True) == ("abx", b"abx")


def test_the_end_token_is_no_part_of_the_answer():
    assert write("", [], take_each=True) == ("", b"")


@pytest.mark.parametrize("token", [65, ByteTokenizer.END])
def test_a_logprob_that_json_cannot_hold_is_a_large_one(token):
    request = Generate(prompts=[TextPrompt(text="")], sampling=SamplingParams(seed=1, logprobs=1))
    choice = Choice(0, request, ByteTokenizer(), PlainText())
    choice.push(Step(job_id=1, token=65, logprobs=Logprobs(float("-inf"), [(token, float("-inf"))])))
    [entry] = choice.take().logprobs
    assert (entry.logprob, entry.top[0].logprob) == (-9999.0, -9999.0)
    assert entry.top[0].token == ("A" if token == 65 else "<|end|>")
