"""Fields that this server knows but cannot honour: refused, unless their value asks for nothing. Knows nothing of the others."""

from collections.abc import Container
from typing import Any

from src.errors import UnsupportedField

# Fields of OpenAI's and the peers' APIs that would change the answer, with the values that ask for nothing.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "best_of": (None, 1),
    "prompt_logprobs": (None,),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "prediction": (None,),
    "web_search_options": (None,),
    "reasoning_effort": (None,),
    "verbosity": (None,),
    "suffix": (None, ""),
    "bad_words": (None, []),
    "guided_whitespace_pattern": (None,),
    "guided_decoding_backend": (None,),
    "grammar": (None, ""),
    "json_schema": (None,),
    "chat_template": (None,),
    "chat_template_kwargs": (None, {}),
    "continue_final_message": (None, False),
    "add_generation_prompt": (None, True),
    "prompt_embeds": (None,),
    "typical_p": (None, 1, 1.0),
    "mirostat": (None, 0),
    "dry_multiplier": (None, 0, 0.0),
    "xtc_probability": (None, 0, 0.0),
}

INSTEAD = {
    "grammar": "Use guided_grammar, which takes Lark.",  # llama-server's, which takes GBNF
    "json_schema": "Use response_format with the type json_schema.",  # llama-server's too
}


def refuse_unsupported(body: dict[str, Any], known: Container[str]) -> None:
    """`known`: fields that this kind of request has."""
    for name, neutral in UNSUPPORTED.items():
        if name in known:
            continue
        # By type too: False == 0 and True == 1 in Python, and n=true is a mistake.
        if name in body and not any(body[name] == value and type(body[name]) is type(value) for value in neutral):
            advice = INSTEAD.get(name, "Leave it out.")
            raise UnsupportedField(f"{name} is not supported by this server with the value given. {advice}", param=name)
