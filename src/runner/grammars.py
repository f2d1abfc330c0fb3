"""What the answers to a request are held to: its tools and its constraint as one grammar each. Knows no jobs and no engine."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from src.engines.base import Grammar
from src.errors import InvalidValue
from src.protocol import ChatPrompt, Generate, TextPrompt, TokenPrompt
from src.text.dialect import Dialect
from src.text.grammar import GrammarCompiler, Limits, source_of
from src.text.tokenizer import Tokenizer
from src.text.tools.call import Function


class Grammars:
    """One model's. Compiles in a thread of its own: a grammar that takes seconds keeps no prompt from being encoded."""

    def __init__(self, tokenizer: Tokenizer, dialect: Dialect | None, limits: Limits | None) -> None:
        self._dialect = dialect
        self._compiler = GrammarCompiler(tokenizer, limits)
        self._thread = ThreadPoolExecutor(1, "grammar")

    def close(self) -> None:
        """No request may be running."""
        self._thread.shutdown()
        self._compiler.close()

    async def of(self, request: Generate, prompts: Sequence[list[int]]) -> list[Grammar | None]:
        """A grammar for each choice, behind the tokens that are known of it; None where it may say anything.

        Raises InvalidSchema, and InvalidValue for a field that cannot go with a grammar.
        """
        has_tools = any(isinstance(prompt, ChatPrompt) and prompt.tools for prompt in request.prompts)
        if request.constraint is None and not has_tools:
            return [None] * (request.n * len(prompts))
        run = asyncio.get_running_loop().run_in_executor
        # The schemas of tools are tried one by one for their grammar's source: that too may take its time.
        sources = await run(self._thread if has_tools else None, self._sources, request, prompts)
        known = all(self._compiler.knows(source) for source in sources if source)
        return await run(None if known else self._thread, self._compile, request, sources)

    def _sources(self, request: Generate, prompts: Sequence[list[int]]) -> list[str | None]:
        """A grammar's source for each prompt."""
        constraint, content = request.constraint, None
        if constraint:
            content = source_of(constraint.form, constraint.source, self._compiler.limits, constraint.param)
        return [self._source(asked, tokens, content) for asked, tokens in zip(request.prompts, prompts, strict=True)]

    def _compile(self, request: Generate, sources: list[str | None]) -> list[Grammar | None]:
        param = request.constraint.param if request.constraint else "tools"
        for field in ("ignore_eos", "min_tokens"):
            if any(sources) and getattr(request.sampling, field):
                raise InvalidValue(f"{field} cannot go with {param}, which says where the answer ends.", field)
        known = request.resume or [[]] * (request.n * len(sources))
        each = [source for source in sources for _ in range(request.n)]
        return [self._compiler.compile(source, tokens, param) if source else None for source, tokens in zip(each, known, strict=True)]

    def _source(self, asked: ChatPrompt | TextPrompt | TokenPrompt, prompt: list[int], content: str | None) -> str | None:
        if self._dialect is None or not isinstance(asked, ChatPrompt):
            return content
        functions = [one for one in functions_of(asked.tools) if asked.only_tool in (None, one.name)]
        parallel = asked.parallel_calls and asked.only_tool is None
        return self._dialect.grammar(prompt, functions, forced=asked.must_call, parallel=parallel, content=content, grammars=self._compiler)


def functions_of(tools: list[dict[str, Any]]) -> list[Function]:
    """OpenAI's objects as the text modules know them."""
    return [
        Function(
            name=tool["function"]["name"],
            parameters=tool["function"].get("parameters"),
            strict=bool(tool["function"].get("strict")),
            param=f"tools[{place}].function.parameters",
        )
        for place, tool in enumerate(tools)
    ]
