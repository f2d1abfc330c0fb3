"""One answer as it is written: which logprobs belong to the text that is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.engines.base import Logprobs, Step
from src.protocol import Generate, TextPrompt
from src.runner.choice import Choice
from src.sampling import SamplingParams
from src.text.output.channels import PlainText
from src.text.output.thinking import THINK_TAGS, Phase, Thinking
from src.text.tokenizer.base import ByteTokenizer
from src.text.tools import harmony, hermes
from src.text.tools.call import Function

TEXT = st.text(alphabet="ab é😀", max_size=12)


class TextTokenizer(ByteTokenizer):
    """Each token is the next so many characters of a text."""

    def __init__(self, text: str, size: int) -> None:
        self.pieces = [text[at : at + size] for at in range(0, len(text), size)]

    def bytes_of(self, token: int) -> bytes:
        return b"" if token == self.END else self.pieces[token].encode()


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


@given(TEXT)
def test_a_logprob_tells_where_in_the_text_its_token_begins(text):
    request = Generate(prompts=[TextPrompt(text="")], sampling=SamplingParams(seed=1, logprobs=0))
    choice = Choice(0, request, ByteTokenizer(), PlainText())
    for token in text.encode():
        choice.push(Step(job_id=1, token=token, logprobs=Logprobs(-1.0, [])))
    delta = choice.take()
    offsets = [entry.offset for entry in delta.logprobs] if delta else []
    assert offsets == [place for place, character in enumerate(text) for _ in character.encode()]


def test_a_held_back_token_is_told_with_its_text():
    assert write("abx", ["abc"], take_each=True) == ("abx", b"abx")


def test_the_end_token_is_no_part_of_the_answer():
    assert write("", [], take_each=True) == ("", b"")


WITH_A_CALL = '<tool_call>\n{"name": "f", "arguments": {"a": "x. y."}}\n</tool_call>'


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("channels", "written", "reasoning", "arguments", "content"),
    [
        (lambda: Thinking(THINK_TAGS[0], PlainText(), Phase.BEGUN), "a. b.</think>\n\nc. d", "a. b.", "", "c"),
        (lambda: Thinking(THINK_TAGS[0], PlainText(), Phase.POSSIBLE), "<think>.</think>.", ".", "", ""),
        (
            lambda: harmony.reader([]),
            "<|channel|>analysis<|message|>a. b.<|end|><|start|>assistant<|channel|>final<|message|>c. d",
            *("a. b.", "", "c"),
        ),
        (lambda: hermes.reader([Function("f")]), f"{WITH_A_CALL}", "", '{"a": "x. y."}', ""),
    ],
)
def test_a_stop_string_ends_the_content_and_neither_reasoning_nor_a_call(channels, written, reasoning, arguments, content, size):
    request = Generate(prompts=[TextPrompt(text="")], sampling=SamplingParams(seed=1), stop=["."])
    choice = Choice(0, request, TextTokenizer(written, size), channels())
    deltas = []
    for token in range(len(TextTokenizer(written, size).pieces)):
        choice.push(Step(job_id=1, token=token))
        deltas += [choice.take()]
        if choice.finish:
            break
    else:
        choice.push(Step(job_id=1, token=ByteTokenizer.END, finish="stop"))
    deltas = [delta for delta in [*deltas, choice.take()] if delta]
    assert "".join(delta.reasoning for delta in deltas) == reasoning
    assert "".join(call.arguments for delta in deltas for call in delta.tool_calls) == arguments
    assert "".join(delta.text for delta in deltas) == content
    assert (choice.reason, choice.ended.stop) == (("tool_calls", None) if arguments else ("stop", "."))


@pytest.mark.parametrize("token", [65, ByteTokenizer.END])
def test_a_logprob_that_json_cannot_hold_is_a_large_one(token):
    request = Generate(prompts=[TextPrompt(text="")], sampling=SamplingParams(seed=1, logprobs=1))
    choice = Choice(0, request, ByteTokenizer(), PlainText())
    choice.push(Step(job_id=1, token=65, logprobs=Logprobs(float("-inf"), [(token, float("-inf"))])))
    [entry] = choice.take().logprobs
    assert (entry.logprob, entry.top[0].logprob) == (-9999.0, -9999.0)
    assert entry.top[0].token == ("A" if token == 65 else "<|end|>")
