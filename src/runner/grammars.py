"""What the answers to a request are held to: its tools and its constraint as one grammar each. Knows no jobs and no engine."""

import asyncio
from collections.abc import Sequence
from typing import Any

from src.engines.base import Grammar
from src.errors import InvalidValue
from src.protocol import ChatPrompt, Generate, TextPrompt, TokenPrompt
from src.runner.turns import Turns
from src.text.dialect import Dialect
from src.text.grammar import Budget, GrammarCompiler, Limits, Uncompiled, source_of
from src.text.tokenizer.base import Tokenizer
from src.text.tools.call import Function

Prompt = ChatPrompt | TextPrompt | TokenPrompt


class Grammars:
    """One model's. Two keys at most have something compiled at the same time; what needs no compiling does not wait for it."""

    def __init__(self, tokenizer: Tokenizer, dialect: Dialect | None, limits: Limits | None) -> None:
        self._dialect = dialect
        self._compiler = GrammarCompiler(tokenizer, limits)
        self._compiling, self._known = Turns(2, "grammar"), Turns(1, "known grammar")

    def close(self) -> None:
        """No request may be running."""
        self._compiling.close()
        self._known.close()
        self._compiler.close()

    async def of(self, request: Generate, prompts: Sequence[list[int]]) -> list[Grammar | None]:
        """A grammar for each choice, behind the tokens that are known of it; None where it may say anything.

        Raises InvalidSchema, and InvalidValue for a field that cannot go with a grammar.
        """
        has_tools = any(isinstance(prompt, ChatPrompt) and prompt.tools for prompt in request.prompts)
        if request.constraint is None and not has_tools:
            return [None] * (request.n * len(prompts))
        seconds = self._compiler.limits.seconds
        try:
            return await self._known.run(request.key, lambda: self._all(request, prompts, Budget(seconds, compiles=False)))
        except Uncompiled:
            budget = Budget(seconds)
        try:
            return await self._compiling.run(request.key, lambda: self._all(request, prompts, budget))
        except asyncio.CancelledError:
            budget.compiles = False  # of many schemas the next is not begun
            raise

    def _all(self, request: Generate, prompts: Sequence[list[int]], budget: Budget) -> list[Grammar | None]:
        constraint, content = request.constraint, None
        if constraint:
            content = source_of(constraint.form, constraint.source, self._compiler.limits, constraint.param)
        sources = [self._source(asked, tokens, content, budget) for asked, tokens in zip(request.prompts, prompts, strict=True)]
        param = constraint.param if constraint else "tools"
        for field in ("ignore_eos", "min_tokens"):
            if any(sources) and getattr(request.sampling, field):
                raise InvalidValue(f"{field} cannot go with {param}, which says where the answer ends.", field)
        known = request.resume or [[]] * (request.n * len(sources))
        each = [source for source in sources for _ in range(request.n)]
        return [
            self._compiler.compile(source, tokens, param, budget) if source else None for source, tokens in zip(each, known, strict=True)
        ]

    def _source(self, asked: Prompt, prompt: list[int], content: str | None, budget: Budget) -> str | None:
        if self._dialect is None or not isinstance(asked, ChatPrompt):
            return content
        return self._dialect.grammar(
            prompt,
            [function for function in functions_of(asked.tools) if asked.only_tool in (None, function.name)],
            forced=asked.must_call,
            parallel=asked.parallel_calls and asked.only_tool is None,
            content=content,
            grammars=self._compiler,
            budget=budget,
        )


def functions_of(tools: list[dict[str, Any]]) -> list[Function]:
    """OpenAI's objects as the text modules know them."""
    return [
        Function(
            name=tool["function"]["name"],
            parameters=tool["function"].get("parameters"),
            strict=bool(tool["function"].get("strict")),
            param=("tools", place, "function", "parameters"),
        )
        for place, tool in enumerate(tools)
    ]
