"""What a request tells the model's chat template beside messages and tools. Knows no template."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo

from src.api.schema.bounds import AtMost, limits_of
from src.api.schema.fields import INT64_MAX

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
            raise ValueError(f"{name[:64]!r} is no name that a request may set")
        if not isinstance(value, (str, bool, int, float, type(None))):
            raise ValueError(f"{name} has to be a string, a number, a boolean or null")
        if isinstance(value, str) and len(value) > longest:
            raise ValueError(f"{name}: MAX_TEMPLATE_VARIABLE_LENGTH allows {longest} characters")
        if isinstance(value, int) and abs(value) > INT64_MAX:
            raise ValueError(f"{name} has to fit 64 bits")
    return variables


TemplateVariables = Annotated[dict[str, Any], AtMost("max_template_variables"), AfterValidator(_check)]
