"""A custom tool's call is one text in place of arguments, however the model's JSON is cut into pieces."""

import pytest

from src.api.render.base import ResponseOptions
from src.api.render.openai import ChatRenderer
from src.protocol import Delta, Ended, Finished, Started, ToolCallDelta

STARTED = Started(prompt_tokens=1, cached_tokens=0, queue_seconds=0)
FINISHED = Finished(prompt_tokens=1, completion_tokens=2, cached_tokens=0)
WRITTEN = '{"input": "*** \\"a\\"\\n"}'
CUSTOM = {"id": "c0", "type": "custom", "custom": {"name": "patch", "input": '*** "a"\n'}}
FUNCTION = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def renderer() -> ChatRenderer:
    return ChatRenderer(id="x", created=7, model="m", fingerprint="f", wants=ResponseOptions(usage=True, custom_tools=("patch",)))


def events(at: int) -> list:
    calls = [ToolCallDelta(index=0, id="c0", name="patch", arguments=WRITTEN[:at]), ToolCallDelta(index=0, arguments=WRITTEN[at:])]
    other = [ToolCallDelta(index=1, id="c1", name="f", arguments="{"), ToolCallDelta(index=1, arguments="}")]
    return [STARTED, *(Delta(tool_calls=[call], tokens=[1]) for call in [*calls, *other]), Ended(reason="tool_calls"), FINISHED]


@pytest.mark.parametrize("at", range(len(WRITTEN) + 1))
def test_it_is_whole_wherever_the_json_is_cut(at):
    of = renderer()
    message = of.fold(of.chunks(events(at)))["choices"][0]["message"]
    assert message["tool_calls"] == [CUSTOM, FUNCTION]
    assert message["content"] is None


def test_a_stream_has_no_json_of_it():
    chunks = [chunk for chunk in renderer().chunks(events(5)) if chunk and chunk["choices"]]
    pieces = [piece for chunk in chunks for piece in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert pieces[:2] == [
        {"index": 0, "id": "c0", "type": "custom", "custom": {"name": "patch", "input": ""}},
        {"index": 0, "custom": {"input": '*** "a"\n'}},
    ]


def test_one_that_breaks_off_is_what_there_is_of_it():
    call = ToolCallDelta(index=0, id="c0", name="patch", arguments='{"inp')
    of = renderer()
    message = of.fold(of.chunks([STARTED, Delta(tool_calls=[call]), Ended(reason="length"), FINISHED]))["choices"][0]["message"]
    assert message["tool_calls"][0]["custom"]["input"] == '{"inp'
