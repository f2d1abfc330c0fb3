"""Refusals of a chat completion, in the words of the route that was translated to it. Knows no route."""

import contextlib
import re
from collections.abc import Iterator, Mapping

from src.errors import ServiceError


@contextlib.contextmanager
def named(names: Mapping[str, str]) -> Iterator[None]:
    """`names`: fields of a chat, and what they are called there. A message of the chat is not the item of the same number."""
    try:
        yield
    except ServiceError as error:
        if error.param is not None:
            there = _translated(error.param, names)
            error.message = error.message.replace(error.param, there)
            error.param = there
        raise


def _translated(param: str, names: Mapping[str, str]) -> str:
    if param in names:
        return names[param]
    first = re.split(r"[.\[]", param, maxsplit=1)[0]
    return names.get(first) or param.replace(".function.", ".")
