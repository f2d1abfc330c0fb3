"""A model's chat template: messages in, prompt text out. Knows nothing of tokens, nor how or where the template is rendered."""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Protocol

from src.errors import InvalidValue
from src.text.template.process import RendererProcess
from src.text.tokenizer.guard import SENTINEL_END, SENTINEL_NOTHING, Guard

NO_VARIABLES: Mapping[str, Any] = MappingProxyType({})
SECONDS = 2.0


class Rendering(Protocol):
    """A template that is compiled."""

    variables: frozenset[str]  # those it reads

    def render(self, variables: Mapping[str, Any]) -> str: ...

    def close(self) -> None: ...


class ChatTemplate:
    """One template, compiled once. Any thread may render."""

    def __init__(
        self,
        source: str,
        *,
        bos_text: str,
        eos_text: str,
        special_texts: Iterable[str],
        seconds: float = SECONDS,
        render_in: Callable[[str, str, str, float], Rendering] = RendererProcess,
    ) -> None:
        """Raises ModelLoadFailed, with the line of the mistake."""
        self._rendering = render_in(source, bos_text, eos_text, seconds)
        self.source = source
        self.variables = self._rendering.variables  # that a request can set
        self._guard = Guard(special_texts)

    def render(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        variables: Mapping[str, Any] = NO_VARIABLES,
        generation_prompt: bool = True,
        continued: bool = False,
    ) -> str:
        """The prompt, up to where the assistant's answer begins; if `continued`, up to the end of the last message's content.
        Special tokens in what the request says come cut: see Guard.

        Raises InvalidValue where the template refuses the messages or fails on them, ChatTemplateError where it is to blame.
        """
        if continued:
            messages = [*messages[:-1], {**messages[-1], "content": _ended(messages[-1]["content"])}]
        variables = {**self._defaults(tools), **variables}
        prompt = self._prompt(messages, tools, {**variables, "add_generation_prompt": generation_prompt and not continued})
        if not continued:
            return prompt
        if SENTINEL_END not in prompt:
            raise InvalidValue("The model's chat template does not show the last message as it is.", "continue_final_message")
        return prompt[: prompt.rindex(SENTINEL_END)]

    def close(self) -> None:
        self._rendering.close()

    def _defaults(self, tools: list[dict[str, Any]] | None) -> dict[str, Any]:
        """Names of Firefunction's own, without which it fails."""
        given: dict[str, Any] = {}
        if "functions" in self.variables:
            given["functions"] = json.dumps([tool["function"] for tool in tools or []], ensure_ascii=False)
        if "datetime" in self.variables:
            given["datetime"] = datetime.now().strftime("%Y-%m-%d")
        return given

    def _prompt(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, variables: Mapping[str, Any]) -> str:
        """Some templates refuse a message that says nothing, though they can write it: then it says something meanwhile."""
        try:
            return self._rendered(messages, tools, variables)
        except InvalidValue as error:
            saying = [_saying(message) for message in messages]
            if saying == messages:
                raise
            refusal = error
        try:
            return self._rendered(saying, tools, variables).replace(SENTINEL_NOTHING, "")
        except InvalidValue:
            raise refusal from None

    def _rendered(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, variables: Mapping[str, Any]) -> str:
        try:
            guarded = {key: self._guarded(value) for key, value in variables.items()}
            guarded |= {"messages": self._guarded(messages), "tools": self._guarded(tools)}
        except RecursionError:
            raise InvalidValue("These messages are nested too deep.", "messages") from None
        return self._rendering.render(guarded)

    def _guarded(self, value: object) -> object:
        if isinstance(value, str):
            return self._guard(value)
        if isinstance(value, list):
            return [self._guarded(item) for item in value]
        if isinstance(value, dict):
            return {self._guarded(key): self._guarded(item) for key, item in value.items()}
        return value


def _ended(content: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """With the sentinel behind its last text."""
    if isinstance(content, str):
        return content + SENTINEL_END
    *parts, last = content
    return [*parts, {**last, last["type"]: last[last["type"]] + SENTINEL_END}]


def _saying(message: dict[str, Any]) -> dict[str, Any]:
    """The message, with something in the place of an empty content."""
    return {**message, "content": SENTINEL_NOTHING} if message.get("content") == "" and not message.get("tool_calls") else message
