"""Whatever a model writes, however it comes, is read: no exception, nothing lost, the same as at once. FUZZ_EXAMPLES for a long run."""

import json
import random
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.text.output.channels import ChannelDelta, Channels, PlainText
from src.text.output.decode import StopMachine
from src.text.output.thinking import THINK_TAGS, Phase, Thinking
from src.text.tools import FORMATS, harmony
from src.text.tools.call import Call, Function
from tests.support.fuzz import EXAMPLES
from tests.text.output.test_decode import naive_held, naive_stop
from tests.text.tools.test_formats import GOLDEN

FUNCTIONS = [Function("get_weather", {"type": "object", "properties": {"city": {"type": "string"}}}), Function("now")]
MARKERS = sorted({marker for one in FORMATS.values() for marker in one.MARKERS} | {"<think>", "</think>", "[THINK]", "[/THINK]"})
PIECES = (
    *MARKERS,
    *("</tool_call>", "<function=", "<parameter=", "</parameter>", "</function>", "<function=now>", "<parameter=city>\n", "```json"),
    *('{"name": "now"', '"arguments": {', '"parameters": ', '{"tool_calls": [', "[get_weather(city=", "[now()]", " to=functions.now"),
    *(
        "get_weather",
        "now",
        "True",
        "null",
        "-1e9",
        '"',
        "'",
        "\\",
        "\\u",
        "\\ud800",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        ":",
        ",",
        "=",
        ";",
        "<",
    ),
    *(" ", "\n", "\0", "é", "😀", "\u2028", "{}", "[]", '""', "<|", "|>", "<｜"),
)
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=25).map("".join)


@st.composite
def spoiled_calls(draw: st.DrawFn) -> str:
    """What a model wrote in one of the formats, cut, repeated and with something in it."""
    text = draw(st.sampled_from([text for _, text, *_ in GOLDEN]))
    begin, end = sorted(draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
    return text[:begin] + draw(texts) + text[draw(st.sampled_from([begin, end])) :]


@st.composite
def cut(draw: st.DrawFn, whole: st.SearchStrategy[str]) -> tuple[str, list[str]]:
    text = draw(whole)
    places = [0, *sorted(draw(st.lists(st.integers(0, len(text)), max_size=6))), len(text)]
    return text, draw(st.sampled_from([list(text), [text[a:b] for a, b in pairwise(places)]]))


def read(machine: Channels, pieces: list[str]) -> tuple[str, str, dict[int, list[str]]]:
    """Content, reasoning, calls by their number: name and arguments."""
    said = ChannelDelta()
    for piece in pieces:
        said.add(machine.push(piece))
    said.add(machine.flush())
    calls: dict[int, list[str]] = {}
    for piece in said.calls:
        if piece.name is not None:
            assert piece.index not in calls, "a call has one name"
            calls[piece.index] = [piece.name, ""]
        calls[piece.index][1] += piece.arguments
    assert sorted(calls) == list(range(len(calls)))
    assert bool(calls) == machine.called
    return said.content, said.reasoning, calls


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=EXAMPLES, deadline=2000)
@given(given=cut(texts | spoiled_calls()))
def test_any_text_is_read_the_same_however_it_comes_and_nothing_of_it_is_lost(name, given):
    text, pieces = given
    whole = read(FORMATS[name].reader(FUNCTIONS), [text])
    assert read(FORMATS[name].reader(FUNCTIONS), pieces) == whole
    content, reasoning, calls = whole
    if not calls and name != "harmony":  # whose headers are no text
        assert content == text
    assert len(content) + len(reasoning) <= len(text) + 2 * text.count(harmony.MESSAGE)


@pytest.mark.parametrize("where", Phase)
@settings(max_examples=EXAMPLES, deadline=2000)
@given(given=cut(texts), marks=st.sampled_from(THINK_TAGS))
def test_reasoning_and_content_together_are_the_text_without_its_marks(where, given, marks):
    text, pieces = given
    whole = read(Thinking(marks, PlainText(), where), [text])
    assert read(Thinking(marks, PlainText(), where), pieces) == whole
    content, reasoning, calls = whole
    assert not calls
    said, rest = _without_space(reasoning + content), _without_space(text)
    assert said in (rest, rest.replace(marks.closing, "", 1), rest.replace(marks.opening, "", 1), _unmarked(rest, marks))


def _without_space(text: str) -> str:
    return "".join(text.split())


def _unmarked(text: str, marks) -> str:
    """Without the opening mark, and the closing mark behind it."""
    before, _, behind = text.partition(marks.opening)
    return before + behind.replace(marks.closing, "", 1)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=EXAMPLES // 2, deadline=2000)
@given(given=cut(texts | spoiled_calls()))
def test_calls_behind_reasoning_are_read_the_same_however_they_come(name, given):
    text, pieces = given
    if name == "harmony":
        return

    def machine() -> Channels:
        return Thinking(THINK_TAGS[0], FORMATS[name].reader(FUNCTIONS), Phase.POSSIBLE)

    assert read(machine(), pieces) == read(machine(), [text])


letters = st.text("ab<|", max_size=14)


@settings(max_examples=5 * EXAMPLES, deadline=2000)
@given(given=cut(letters | texts), stops=st.lists(st.text("ab<|", min_size=1, max_size=4) | texts.filter(bool), min_size=1, max_size=4))
def test_a_text_never_leaks_a_stop_and_never_loses_anything_before_one(given, stops):
    text, pieces = given
    expected, stopped = naive_stop(text, stops)
    machine, including = StopMachine(stops), StopMachine(stops, included=True)
    shown = seen = ""
    for piece in pieces:
        seen += piece
        shown += machine.push(piece)
        if not machine.stopped:
            assert shown == seen[: len(seen) - naive_held(seen, stops)], "no more is held back than may begin a stop"
    shown += machine.flush()
    assert (shown, machine.stopped) == (expected, stopped)
    assert not any(stop in shown for stop in stops)
    with_stop = "".join(map(including.push, pieces)) + including.flush()
    assert with_stop == expected + (including.found or "")
    assert text.startswith(with_stop)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("text", ["[" * 50_000, "[f(a=" * 200_000, "{" * 50_000, "<" * 500_000], ids=lambda text: text[:5])
def test_what_made_other_parsers_hang_takes_some_milliseconds(name, text):
    taken = []
    for _ in range(3):  # others use this machine too
        began = time.process_time()
        read(FORMATS[name].reader(FUNCTIONS), [text])
        taken.append(time.process_time() - began)
        if taken[-1] < 0.2:
            return
    raise AssertionError(f"{min(taken):.2f} s")


@pytest.mark.parametrize("name", FORMATS)
def test_a_stream_of_small_pieces_takes_a_time_that_grows_with_its_length(name):
    """Four times the text may take some eight times as long, on a busy machine too; what grows with the square takes sixteen."""
    draw = random.Random(name)
    for text in ("[get_weather(city='", '{"tool_calls": [{"name": "now", "arguments": {"a": "'):

        def seconds(length: int, text: str = text) -> float:
            pieces = [text] + ["".join(draw.choices("ab\\", k=3)) for _ in range(length)]
            taken = []
            for _ in range(3):
                began = time.process_time()
                read(FORMATS[name].reader(FUNCTIONS), pieces)
                taken.append(time.process_time() - began)
            return min(taken)

        assert seconds(12_000) < 8 * seconds(3_000) + 0.05


def test_arguments_of_a_whole_call_are_json_whatever_is_in_them():
    rng = random.Random(7)
    for _ in range(300):
        city = "".join(rng.choices("ab\"'\\{}[]<>/é😀\n", k=8))
        for name in FORMATS:
            text = FORMATS[name].write([Call("get_weather", {"city": city})])
            _, _, calls = read(FORMATS[name].reader(FUNCTIONS), list(text))
            assert json.loads(calls[0][1]) == {"city": city}, (name, city)
