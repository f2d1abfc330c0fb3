"""Variables that a request sets for the model's chat template, beside messages and tools."""

import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo

from src.api.schema.fields import INT64_MAX
from src.api.schema.limits import AtMost, limits_of
from src.api.schema.nesting import has_more_values

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")

# Names that a renderer, or the template language, has for something else.
RESERVED = frozenset(
    (
        *("messages", "conversation", "conversations", "tools", "documents", "chat_template", "template", "source", "self", "tokenizer"),
        *("add_generation_prompt", "continue_final_message", "generation_prompt", "continued", "tokenize", "padding", "truncation"),
        *("max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs", "variables"),
        *("bos_token", "eos_token", "unk_token", "pad_token", "raise_exception", "strftime_now"),
        *("range", "dict", "lipsum", "cycler", "joiner", "namespace", "loop", "caller", "varargs", "kwargs", "context", "environment"),
    )
)


def _check(variables: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    longest = limits_of(info).max_template_variable_length
    for name, value in variables.items():
        if not NAME.fullmatch(name) or name in RESERVED:
            raise ValueError(f"cannot set {name[:64]!r}")
        if isinstance(value, (list, dict)):
            _check_nested(name, value, longest)
        elif isinstance(value, str) and len(value) > longest:
            raise ValueError(f"has a value for {name} that is too long: MAX_TEMPLATE_VARIABLE_LENGTH allows {longest} characters")
        elif isinstance(value, int) and abs(value) > INT64_MAX:
            raise ValueError(f"has a value for {name} that does not fit in 64 bits")
    return variables


def _check_nested(name: str, value: Any, longest: int) -> None:
    if has_more_values(value, longest) or len(json.dumps(value, ensure_ascii=False)) > longest:
        raise ValueError(f"has a value for {name} that is too long: MAX_TEMPLATE_VARIABLE_LENGTH allows {longest} characters as JSON")
    inner = [value]
    while inner:
        part = inner.pop()
        if isinstance(part, dict):
            if any(key.startswith("__") for key in part):  # mean something to Python
                raise ValueError(f"has a value for {name} with a name in it that begins with two underscores")
            inner += part.values()
        elif isinstance(part, list):
            inner += part
        elif isinstance(part, int) and abs(part) > INT64_MAX:
            raise ValueError(f"has a number in its value for {name} that does not fit in 64 bits")


TemplateVariables = Annotated[dict[str, Any], AtMost("max_template_variables"), AfterValidator(_check)]
