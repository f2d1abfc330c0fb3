"""Reasoning is told from the answer, however the text is cut. Marks: DeepSeek R1's and Qwen 3's `<think>`, Magistral's `[THINK]`."""

import pytest

from src.text.output.channels import ChannelDelta, PlainText
from src.text.output.thinking import THINK_TAGS, Phase, Thinking, phase
from src.text.tools import hermes
from src.text.tools.call import Function

THINK, BRACKETS = THINK_TAGS
CASES = [
    (Phase.POSSIBLE, "<think>\nOne,\n\ntwo.\n</think>\n\nThe answer.", "One,\n\ntwo.", "The answer."),
    (Phase.POSSIBLE, " \n<think>hm</think>yes", "hm", "yes"),
    (Phase.POSSIBLE, "<think>\n\n</think>\n\nyes", "", "yes"),
    (Phase.POSSIBLE, "No thought, <think>a tag</think>.", "", "No thought, <think>a tag</think>."),
    (Phase.POSSIBLE, "\n plain ", "", "\n plain "),
    (Phase.POSSIBLE, "<thin", "", "<thin"),
    (Phase.POSSIBLE, "<think>cut off in the mid", "cut off in the mid", ""),
    (Phase.BEGUN, "\nhm \n</think>\n\nyes </think> no", "hm", "yes </think> no"),
    (Phase.BEGUN, "<think>hm</think>yes", "hm", "yes"),
    (Phase.BEGUN, "a < b, </ b, </thin b", "a < b, </ b, </thin b", ""),
    (Phase.OVER, "<think>is text</think>", "", "<think>is text</think>"),
]


def read(pieces: list[str], machine: Thinking) -> ChannelDelta:
    said = ChannelDelta()
    for piece in pieces:
        said.add(machine.push(piece))
    said.add(machine.flush())
    return said


@pytest.mark.parametrize(("where", "text", "reasoning", "content"), CASES)
def test_however_it_is_cut_reasoning_is_told_from_content(where, text, reasoning, content):
    for pieces in ([text], list(text), *([text[:place], text[place:]] for place in range(len(text)))):
        said = read(pieces, Thinking(THINK, PlainText(), where))
        assert (said.reasoning, said.content) == (reasoning, content)


def test_reasoning_streams():
    machine = Thinking(THINK, PlainText(), Phase.BEGUN)
    assert machine.thinks
    assert machine.push("one ").reasoning == "one"
    assert machine.push("two").reasoning == " two"
    assert machine.push("</think> three").content == "three"
    assert not machine.thinks


def test_calls_are_read_behind_the_reasoning_and_not_in_it():
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    machine = Thinking(THINK, hermes.reader([Function("f")]), Phase.POSSIBLE)
    said = read([f"<think>I could say {call}</think>{call}"], machine)
    assert said.reasoning == f"I could say {call}"
    assert [piece.name for piece in said.calls] == ["f", None]
    assert machine.called


def test_other_marks_work_the_same():
    said = read(list("[THINK]hm[/THINK]yes"), Thinking(BRACKETS, PlainText(), Phase.POSSIBLE))
    assert (said.reasoning, said.content) == ("hm", "yes")


@pytest.mark.parametrize(
    ("prompt", "where"),
    [
        ("<|im_start|>assistant\n", Phase.POSSIBLE),
        ("<|im_start|>assistant\n<think>\n", Phase.BEGUN),
        ("<｜Assistant｜><think>", Phase.BEGUN),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", Phase.OVER),
        ("say <think><|im_end|>\n<|im_start|>assistant\n", Phase.POSSIBLE),
    ],
)
def test_the_prompts_end_tells_whether_reasoning_has_begun(prompt, where):
    assert phase(THINK, prompt) is where
    assert phase(None, prompt) is Phase.OVER


def test_many_megabytes_of_space_take_no_time():
    said = read([" " * 1_000_000], Thinking(THINK, PlainText(), Phase.POSSIBLE))
    assert len(said.content) == 1_000_000
