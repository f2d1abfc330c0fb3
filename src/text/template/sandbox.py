"""A chat template in Jinja's sandbox: compiled and rendered here, in this process. Knows no messages, and bounds no time.

The environment is the one that templates are written for: transformers' `_compile_jinja_template`
(https://github.com/huggingface/transformers/blob/main/src/transformers/utils/chat_template_utils.py).
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from src.errors import ChatTemplateError, ChatTemplateTooCostly, InvalidValue, ModelLoadFailed

MOST_SOURCE = 1 << 20  # characters of a template; long ones have some thirty thousand
LEAST_OUTPUT = 1 << 20  # characters that any template may write
GROWTH = 4  # characters more for each byte of its variables

# What an expression of a template can raise when it meets messages that it was not written for.
RENDER_ERRORS = (
    *(TemplateError, ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError),
    *(TypeError, ValueError),
)


class Sandbox:
    def __init__(self, source: str, bos_text: str, eos_text: str) -> None:
        """Raises ModelLoadFailed, with the line of the mistake."""
        if len(source) > MOST_SOURCE:
            raise ModelLoadFailed(f"the model's chat template has {len(source):,} characters, and {MOST_SOURCE:,} are allowed")
        environment = _environment()
        try:
            tree = environment.parse(source)
            self._strings = [const.value for const in tree.find_all(nodes.Const) if isinstance(const.value, str)]
            self._template = environment.from_string(source)
            self.variables = frozenset(meta.find_undeclared_variables(tree))
        except (*RENDER_ERRORS, SyntaxError) as error:  # Jinja computes what is constant in it
            line = getattr(error, "lineno", None)
            reason = str(error)[:300] or type(error).__name__
            raise ModelLoadFailed(f"the model's chat template is wrong{f' in line {line}' if line else ''}: {reason}") from error
        self._fixed = {
            "bos_token": bos_text,
            "eos_token": eos_text,
            "documents": None,
            "raise_exception": self._refuse,
            "strftime_now": _strftime_now,
        }

    def render(self, variables: Mapping[str, Any], size: int) -> str:
        """The template's text. `size`: bytes of the variables, as JSON.

        Raises InvalidValue where it fails on that, ChatTemplateError where it wants out of the sandbox, ChatTemplateTooCostly
        where it writes too much, and MemoryError.
        """
        parts, left = [], LEAST_OUTPUT + GROWTH * size
        try:
            for part in self._template.generate({**variables, **self._fixed}):
                left -= len(part)
                if left < 0:
                    raise ChatTemplateTooCostly("The model's chat template writes far more than these messages hold.", "messages")
                parts.append(part)
            return "".join(parts)
        except SecurityError:
            raise ChatTemplateError("The model's chat template asks for what no template may have.", "messages") from None
        except RENDER_ERRORS as error:
            # Not `from error`: its text may quote the prompt, and a traceback ends in a log.
            raise InvalidValue(f"The model's chat template fails on these messages ({type(error).__name__}).", "messages") from None

    def _refuse(self, message: object) -> NoReturn:
        """The template's `raise_exception`. Passes on the template's own words only: what it joins to them may be the prompt's."""
        reason = str(message)[:300]
        words = max((text for text in self._strings if reason.startswith(text)), key=len, default="").strip()
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
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys, default=_listed)


def _listed(value: object) -> object:
    """What a filter such as `map` has made."""
    if isinstance(value, Iterator):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
