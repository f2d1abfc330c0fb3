"""Fields that a request does not have: those known here that cannot be honoured are refused, the others reported, and so are parts
that were left out."""

from collections.abc import Container, Iterator
from typing import Any

from src.api.schema.fields import LeftOut, Strict
from src.errors import FIELD, UnsupportedField

# Fields without effect, in OpenAI's API too: neither refused nor reported.
WITHOUT_EFFECT = frozenset("user store metadata service_tier safety_identifier prompt_cache_key prompt_cache_retention".split())

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
            raise UnsupportedField(f"{FIELD} is not supported with this value. {advice}", name)


def unknown_fields(parsed: Strict, known: frozenset[str] = frozenset()) -> Iterator[str]:
    """Their names: `colour`, `messages[0].colour`. A field that is null counts as not there; `known` are names on the top level."""
    for path, name in _extra(parsed, ""):
        if path or name not in WITHOUT_EFFECT | known:
            yield f"{path}{name}"


def _extra(parsed: Strict, path: str) -> Iterator[tuple[str, str]]:
    """(path of its object, name) of each field that this object and those in it do not have."""
    yield from ((path, name) for name, value in (parsed.model_extra or {}).items() if value is not None)
    yield from ((path, name) for name in parsed.without_effect())
    for name in type(parsed).model_fields:
        yield from _within(getattr(parsed, name), f"{path}{name}")


def _within(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, LeftOut):
        yield "", name
    elif isinstance(value, Strict):
        yield from _extra(value, f"{name}.")
    elif isinstance(value, list) and value and isinstance(value[0], Strict):  # a list of tokens has none, and may be long
        for index, item in enumerate(value):
            yield from _within(item, f"{name}[{index}]")
