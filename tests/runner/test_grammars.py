"""Grammars of many keys: who needs none, or one that is known, waits for nobody; the others have their turns."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from src.engines.base import Grammar
from src.protocol import ChatPrompt, Constraint, Generate, TextPrompt
from src.runner.grammars import Grammars
from src.sampling import SamplingParams
from src.text.dialect import Dialect
from src.text.tokenizer.base import ByteTokenizer
from tests.support.here import template_here


class Service:
    """Grammars whose compiler stops at each new one until it may go on."""

    def __init__(self) -> None:
        template = template_here("{{ messages[-1].content }}", bos_text="", eos_text="", special_texts=ByteTokenizer.special_texts)
        self.grammars = Grammars(ByteTokenizer(), Dialect(template, ByteTokenizer(), "hermes"), None)
        compiler = self.grammars._compiler
        compiler.compile('start: "known"')
        self.at_it, self.go_on = threading.Event(), threading.Event()
        self.sources: list[str] = []
        check = compiler._idle[0].check

        def held(source: str, seconds: float) -> None:
            self.sources.append(source)
            self.at_it.set()
            assert self.go_on.wait(10)
            check(source, seconds)

        compiler._idle[0].check = held

    async def of(self, request: Generate) -> list[Grammar | None]:
        return await self.grammars.of(request, [[1]] * len(request.prompts))

    def begin(self, *requests: Generate) -> list[asyncio.Future]:
        return [asyncio.ensure_future(self.of(request)) for request in requests]

    def compiled(self, *words: str) -> list[str]:
        """Which of the words were in sources, in the order of these."""
        return [word for source in self.sources for word in words if f'"{word}"' in source]


def lark(word: str, key: str = "") -> Generate:
    constraint = Constraint(form="lark", source=f'start: "{word}"')
    return Generate(prompts=[TextPrompt(text="a")], sampling=SamplingParams(seed=1), constraint=constraint, key=key)


def tools(*names: str, **prompt: bool) -> Generate:
    listed = [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {name: {"type": "null"}}}}}
        for name in names
    ]
    return Generate(
        prompts=[ChatPrompt(messages=[{"role": "user", "content": "a"}], tools=listed, **prompt)], sampling=SamplingParams(seed=1)
    )


def run(check: Callable) -> None:
    async def main() -> None:
        service = Service()
        waiting = service.begin(lark("slow", key="greedy"))
        await asyncio.to_thread(service.at_it.wait)
        await asyncio.wait_for(check(service, waiting), 10)
        service.go_on.set()
        await asyncio.gather(*waiting, return_exceptions=True)
        service.grammars.close()

    asyncio.run(main())


@pytest.mark.parametrize("request_", [lark("known"), tools("f", "g"), tools()], ids=["a known grammar", "tools that may be called", "none"])
def test_what_needs_no_compiling_does_not_wait_for_it(request_):
    async def check(service: Service, waiting: list) -> None:
        [grammar] = await service.of(request_)
        assert (grammar is None) == (request_.constraint is None)
        assert service.compiled("slow") == ["slow"]

    run(check)


def test_a_key_does_not_wait_for_what_is_compiled_for_another():
    async def check(service: Service, waiting: list) -> None:
        waiting += service.begin(*(lark(f"more {number}", key="greedy") for number in range(8)))
        await asyncio.to_thread(service.at_it.wait)
        await asyncio.gather(*service.begin(lark("modest", key="modest")))
        assert len(service.sources) == 1

    run(check)


def test_of_many_schemas_none_is_compiled_once_their_client_has_left():
    async def main() -> None:
        service = Service()
        [asked] = service.begin(tools("f", "g", "h", must_call=True))
        await asyncio.to_thread(service.at_it.wait)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        service.go_on.set()
        await service.of(lark("next"))
        assert service.compiled("f", "g", "h", "next") == ["f", "next"]
        service.grammars.close()

    asyncio.run(main())
