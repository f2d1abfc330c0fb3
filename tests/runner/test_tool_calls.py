"""Tool calls and reasoning through a whole request: read from tokens, enforced by grammars, counted, and resumed."""

import asyncio

import pytest

from src.engines.echo import EchoEngine, EchoOptions
from src.errors import InvalidSchema, InvalidValue, ModelLoadFailed, UnsupportedField
from src.protocol import ChatPrompt, Constraint, Delta, Ended, Finished, Generate
from src.runner.engine_loop import EngineLoop
from src.runner.generation import Generator
from src.sampling import SamplingParams
from tests.support.here import template_here
from tests.support.marked_tokenizer import MarkedTokenizer

SAYS = "{{ messages[-1].content }}"  # the echo engine answers with the prompt
CALL = '<tool_call>\n{"name": "f", "arguments": {"city": "Genève"}}\n</tool_call>'
TOOL = {"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}}}


def request(text: str, *, tools: bool = True, resume: list[int] | None = None, constraint: Constraint | None = None, **prompt) -> Generate:
    asked = ChatPrompt(messages=[{"role": "user", "content": text}], tools=[TOOL] if tools else [], **prompt)
    return Generate(
        prompts=[asked], sampling=SamplingParams(seed=1, temperature=0), resume=[resume] if resume else [], constraint=constraint
    )


def run(*requests: Generate, tool_format: str | None = "hermes", template: str = SAYS, strict: bool = False, **markers) -> list[list]:
    """The events of requests, one after the other."""

    async def main() -> list[list]:
        tokenizer = MarkedTokenizer(**markers)
        loop = EngineLoop(lambda: EchoEngine(EchoOptions(model_path="", context_length=4096, max_sequences=4)), on_death=lambda: None)
        engine = await loop.start()
        source = template_here(template, bos_text="", eos_text="", special_texts=tokenizer.special_texts)
        generator = Generator(loop, engine, tokenizer, source, tool_format=tool_format, strict=strict)
        try:
            answers = []
            for one in requests:
                answers.append([event async for event in generator.generate(one)])
            return answers
        finally:
            loop.close()
            generator.close()

    return asyncio.run(main())


def told(events: list) -> tuple[str, str, list[list[str]], str]:
    """Content, reasoning, calls (name and arguments), finish reason."""
    deltas = [event for event in events if isinstance(event, Delta)]
    calls: list[list[str]] = []
    for piece in (piece for delta in deltas for piece in delta.tool_calls):
        if piece.id is not None:
            assert piece.id.startswith("call_")
            assert piece.arguments == ""
            calls.append([piece.name, ""])
        assert piece.index == len(calls) - 1
        calls[-1][1] += piece.arguments
    [ended] = [event for event in events if isinstance(event, Ended)]
    return "".join(delta.text for delta in deltas), "".join(delta.reasoning for delta in deltas), calls, ended.reason


WITHOUT_TOOLS = "{{ messages[-1].content.partition('CUT')[2] or messages[-1].content }}"


def echoed(text: str, **options) -> tuple[str, str, list[list[str]], str]:
    """What an answer with this text is told as: the words about tools are in front of CUT."""
    [events] = run(request(f"CUT{text}", **options), template=WITHOUT_TOOLS)
    return told(events)


def test_a_call_is_told_as_one_and_is_the_reason_of_the_end():
    assert echoed(f"I look.\n{CALL}") == ("I look.", "", [["f", '{"city": "Genève"}']], "tool_calls")
    assert echoed("No call.") == ("No call.", "", [], "stop")


def test_without_tools_the_same_text_is_content():
    assert echoed(CALL, tools=False) == (CALL, "", [], "stop")


def test_two_calls_have_two_ids():
    [events] = run(request(f"CUT{CALL}\n{CALL}"), template=WITHOUT_TOOLS)
    ids = [piece.id for event in events if isinstance(event, Delta) for piece in event.tool_calls if piece.id]
    assert len(ids) == len(set(ids)) == 2


def test_markers_that_are_control_tokens_are_read_and_never_shown():
    controls = ("[TOOL_CALLS]", "[ARGS]")
    template = '{{ "" }}[TOOL_CALLS]f[ARGS]{"a": 1}'
    [events] = run(request("x"), tool_format="mistral_args", template=template, controls=controls)
    assert told(events) == ("", "", [["f", '{"a": 1}']], "tool_calls")
    [events] = run(request("x", tools=False), tool_format="mistral_args", template=template, controls=controls)
    assert told(events) == ('f{"a": 1}', "", [], "stop")


THINKING = "<think>\nLet me\nthink.</think>\n\nYes."


def test_reasoning_is_told_apart_and_its_tokens_are_counted():
    [events] = run(request(THINKING, tools=False), template=f"{{# </think> #}}{SAYS}", tool_format=None)
    assert told(events) == ("Yes.", "Let me\nthink.", [], "stop")
    [finished] = [event for event in events if isinstance(event, Finished)]
    assert len("Let me\nthink.") <= finished.reasoning_tokens <= len("<think>\nLet me\nthink.</think>")
    assert finished.completion_tokens == len(THINKING) + 1


@pytest.mark.parametrize("text", [f"So:\n{CALL}\nDone. {CALL}", "<tool_call> is a tag, and {this} is none", f"<think>hm ü</think>{CALL}"])
def test_an_answer_that_goes_on_elsewhere_says_the_rest_and_no_more(text):
    template = f"{{# </think> #}}{WITHOUT_TOOLS}"
    asked = f"CUT{text}"
    [whole] = run(request(asked), template=template)
    deltas = [event for event in whole if isinstance(event, Delta)]
    known: list[int] = []
    resumes = []
    for delta in deltas[:-1]:
        known = known + delta.tokens
        resumes.append(list(known))
    for place, events in enumerate(run(*(request(asked, resume=tokens) for tokens in resumes), template=template)):
        content, reasoning, calls, reason = told_pieces(
            deltas[: place + 1] + [event for event in events if not isinstance(event, Finished)]
        )
        assert (content, reasoning, calls, reason) == told_pieces([*deltas, *(event for event in whole if isinstance(event, Ended))])


def told_pieces(events: list) -> tuple[str, str, list[tuple[str | None, str]], str]:
    deltas = [event for event in events if isinstance(event, Delta)]
    calls: dict[int, list] = {}
    for piece in (piece for delta in deltas for piece in delta.tool_calls):
        call = calls.setdefault(piece.index, [None, ""])
        call[0] = piece.name or call[0]
        call[1] += piece.arguments
    [ended] = [event for event in events if isinstance(event, Ended)]
    return (
        "".join(delta.text for delta in deltas),
        "".join(delta.reasoning for delta in deltas),
        [tuple(c) for c in calls.values()],
        ended.reason,
    )


def test_a_call_that_has_to_be_is_one_whatever_the_model_would_say():
    [events] = run(request("CUTNo, I will not.", must_call=True, parallel_calls=False), template=WITHOUT_TOOLS)
    assert told(events) == ("", "", [["f", "{}"]], "tool_calls")


def test_what_cannot_go_with_a_forced_call_is_refused():
    forced = request("x", must_call=True)
    with pytest.raises(InvalidValue) as caught:
        run(Generate(prompts=forced.prompts, sampling=SamplingParams(seed=1, ignore_eos=True)))
    assert caught.value.param == "ignore_eos"


def test_a_strict_schema_that_cannot_be_enforced_is_refused_by_its_place():
    parameters = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}
    strict = {"type": "function", "function": {"name": "g", "description": "", "parameters": parameters, "strict": True}}
    asked = ChatPrompt(messages=[{"role": "user", "content": "x"}], tools=[TOOL, strict])
    with pytest.raises(InvalidSchema) as caught:
        run(Generate(prompts=[asked], sampling=SamplingParams(seed=1)))
    assert caught.value.param == "tools[1].function.parameters"


def test_an_answer_held_to_a_schema_may_reason_first():
    schema = Constraint(form="choice", source='["yes", "no"]')
    text = "<think>hm</think>\n\nyes"
    [events] = run(request(text, tools=False, constraint=schema), template=f"{{# </think> #}}{SAYS}", tool_format=None)
    assert told(events) == ("yes", "hm", [], "stop")


def test_a_tool_format_that_is_not_known_ends_the_load():
    with pytest.raises(ModelLoadFailed, match="tool_format 'xml' is not known"):
        run(tool_format="xml")


def test_reasoning_effort_of_a_model_that_does_not_reason_is_told_or_refused_where_the_server_is_strict():
    [(started, *_)] = run(request("x", reasoning_effort="low"))
    assert started.ignored == [("reasoning_effort",)]
    with pytest.raises(UnsupportedField) as caught:
        run(request("x", reasoning_effort="low"), strict=True)
    assert caught.value.param == "reasoning_effort"
