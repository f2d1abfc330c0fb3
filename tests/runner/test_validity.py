"""When a model is not believed any more: after so many requests in a row whose numbers were none."""

import asyncio

from src.engines.echo import EchoEngine, EchoOptions
from src.errors import EngineError, InvalidOutput
from src.protocol import Generate, TextPrompt
from src.runner.engine_loop import EngineLoop
from src.runner.generation import Generator
from src.runner.validity import MOST_IN_A_ROW, Validity
from src.sampling import SamplingParams
from src.text.tokenizer.base import ByteTokenizer

OPTIONS = EchoOptions(model_path="", context_length=1000, max_sequences=4)
BAD = InvalidOutput("NaN")


def test_it_takes_several_requests_in_a_row():
    validity = Validity()
    assert [validity.note(number, BAD) for number in range(MOST_IN_A_ROW + 1)] == [False] * (MOST_IN_A_ROW - 1) + [True, False]
    assert validity.invalid == MOST_IN_A_ROW + 1


def test_one_good_answer_between_them_starts_the_count_anew():
    validity = Validity()
    for request in range(3 * MOST_IN_A_ROW):
        assert not validity.note(request, None if request % MOST_IN_A_ROW == 0 else BAD)


def test_an_answer_that_a_stop_string_ended_is_a_good_one():
    async def main() -> None:
        engine_loop = EngineLoop(lambda: EchoEngine(OPTIONS), on_death=lambda: None)
        engine = await engine_loop.start()
        generator = Generator(engine_loop, engine, ByteTokenizer(), None)
        try:
            engine_loop.validity.note("another request", BAD)
            request = Generate(prompts=[TextPrompt(text="hello")], sampling=SamplingParams(seed=0), stop=["ll"])
            async for _ in generator.generate(request):
                pass
            assert engine_loop.validity.in_a_row == 0
        finally:
            engine_loop.close()
            generator.close()

    asyncio.run(main())


def test_the_sequences_of_one_request_count_once():
    validity = Validity()
    assert not any(validity.note("one request", BAD) for _ in range(2 * MOST_IN_A_ROW))
    assert validity.invalid == 2 * MOST_IN_A_ROW


def test_other_errors_say_nothing_about_numbers():
    validity = Validity()
    assert not any(validity.note(request, EngineError("its grammar")) for request in range(2 * MOST_IN_A_ROW))
    assert validity.invalid == 0
