"""A model's chat template: messages in, prompt text out. Knows nothing of tokens; a sandbox, for a template is code out of a file.

The environment is the one that templates are written for: transformers' `_compile_jinja_template`
(https://github.com/huggingface/transformers/blob/main/src/transformers/utils/chat_template_utils.py).
"""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, NoReturn

from jinja2 import TemplateError, meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from src.errors import InvalidValue, ModelLoadFailed
from src.text.guard import Guard

HERE = "\ufdd2"  # a noncharacter: where the last message's content ends
NO_VARIABLES: Mapping[str, Any] = MappingProxyType({})

# What an expression of a template can raise when it meets messages that it was not written for.
RENDER_ERRORS = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class ChatTemplate:
    """One template, compiled once. Any thread may render."""

    def __init__(self, source: str, *, bos_text: str, eos_text: str, special_texts: Iterable[str]) -> None:
        """Raises ModelLoadFailed, with the line of the mistake."""
        environment = _environment()
        try:
            tree = environment.parse(source)
            self._strings = [const.value for const in tree.find_all(nodes.Const) if isinstance(const.value, str)]
            self._template = environment.from_string(source)
        except (TemplateError, SyntaxError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            raise ModelLoadFailed(f"the model's chat template is wrong{f' in line {line}' if line else ''}: {error}") from error
        self.source = source
        self.variables = frozenset(meta.find_undeclared_variables(tree))  # what a request can tell it
        self._guard = Guard(special_texts)
        self._fixed: dict[str, Any] = {
            "bos_token": bos_text,
            "eos_token": eos_text,
            "add_generation_prompt": True,
            "tools": None,
            "documents": None,
            "raise_exception": self._refuse,
            "strftime_now": _strftime_now,
        }

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

        Raises InvalidValue where the template refuses the messages or fails on them.
        """
        if continued:
            messages = [*messages[:-1], {**messages[-1], "content": messages[-1]["content"] + HERE}]
        try:
            given = {key: self._guarded(value) for key, value in variables.items()}
            asked = {"messages": self._guarded(messages), "tools": self._guarded(tools)}
            begins = {"add_generation_prompt": generation_prompt and not continued}
            prompt = self._template.render(given | self._fixed | asked | begins)
        except RENDER_ERRORS as error:
            # Not `from error`: its text may quote the prompt, and a traceback ends in a log.
            raise InvalidValue(f"The model's chat template fails on these messages ({type(error).__name__}).", "messages") from None
        if not continued:
            return prompt
        if HERE not in prompt:
            raise InvalidValue("The model's chat template does not show the last message as it is.", "continue_final_message")
        return prompt[: prompt.rindex(HERE)]

    def _guarded(self, value: object) -> object:
        if isinstance(value, str):
            return self._guard(value)
        if isinstance(value, list):
            return [self._guarded(item) for item in value]
        if isinstance(value, dict):
            return {self._guarded(key): self._guarded(item) for key, item in value.items()}
        return value

    def _refuse(self, message: object) -> NoReturn:
        """The template's `raise_exception`. Passes on the template's own words only: what it joins to them may be the prompt's."""
        words = max((text for text in self._strings if str(message).startswith(text)), key=len, default="").strip()
        raise InvalidValue(f"The model's chat template refuses these messages{f': {words}' if words else '.'}"[:300], "messages")


class _GenerationTag(Extension):
    """`{% generation %}` marks the assistant's text for training. Here it only stands around it."""

    tags = {"generation"}  # noqa: RUF012 (as the base class has it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols])
    environment.filters["tojson"] = _tojson
    return environment


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes for HTML, which models were not trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
