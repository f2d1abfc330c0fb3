"""How models write tool calls, one file a format. Knows nothing of tokens, requests or templates but their text."""

from typing import Protocol, cast

from src.errors import ModelLoadFailed
from src.text.output.channels import Channels
from src.text.tools import deepseek, deepseek_v31, generic, harmony, hermes, llama3, mistral, mistral_args, pythonic, qwen3_coder
from src.text.tools.call import Call, Function
from src.text.tools.lark import Lark, Want


class ToolFormat(Protocol):
    """A module of this package."""

    MARKERS: tuple[str, ...]  # control tokens that the reader has to see as text

    def is_of(self, template: str) -> bool:
        """Whether a chat template teaches this format."""

    def reader(self, functions: list[Function]) -> Channels: ...

    def write(self, calls: list[Call]) -> str:
        """The calls as the model would write them."""

    def grammar(self, lark: Lark, functions: list[Function], want: Want) -> str:
        """The rule of an answer that is as wanted."""


# The first that knows a template has it; generic, the last, knows them all.
FORMATS: dict[str, ToolFormat] = {
    module.__name__.rpartition(".")[2]: cast(ToolFormat, module)
    for module in (harmony, deepseek, deepseek_v31, qwen3_coder, hermes, mistral_args, mistral, pythonic, llama3, generic)
}


def detect(template: str) -> str:
    """The name of the format that a chat template teaches."""
    return next(name for name, one in FORMATS.items() if one.is_of(template))


def by_name(name: str) -> ToolFormat:
    """Raises ModelLoadFailed, with the names there are."""
    if name not in FORMATS:
        raise ModelLoadFailed(f"tool_format {name!r} is not known: expected one of {', '.join(FORMATS)}")
    return FORMATS[name]
