"""Fields of a body that its request does not have. Knows by name only those that OpenAI's API takes without effect too."""

from collections.abc import Iterator
from typing import Any

from src.api.schema.fields import Strict

WITHOUT_EFFECT = frozenset("user store metadata service_tier safety_identifier prompt_cache_key prompt_cache_retention".split())


def unknown_fields(parsed: Strict, known: frozenset[str] = frozenset()) -> Iterator[str]:
    """Their paths: `colour`, `messages[0].colour`. A field that is null counts as not there; `known` are names on the top level."""
    for path, name in _extra(parsed, ""):
        if path or name not in WITHOUT_EFFECT | known:
            yield f"{path}{name}"


def _extra(of: Strict, path: str) -> Iterator[tuple[str, str]]:
    """(path of its object, name) of each field that this object and those in it do not have."""
    yield from ((path, name) for name, given in (of.model_extra or {}).items() if given is not None)
    for name in type(of).model_fields:
        yield from _within(getattr(of, name), f"{path}{name}")


def _within(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Strict):
        yield from _extra(value, f"{name}.")
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _within(one, f"{name}[{index}]")
