"""Names that stand for models: those that an operator gave whole, and those with wildcards, which stand for any name of their form."""

from collections.abc import Iterable

WILDCARD = "*"


def matches(alias: str, name: str) -> bool:
    """Whether the alias stands for the name: it is it, or each of its wildcards stands for some characters or none. Takes no longer
    than the name is long, however many wildcards there are."""
    if WILDCARD not in alias:
        return alias == name
    first, *middle, last = alias.split(WILDCARD)
    at, end = len(first), len(name) - len(last)
    if at > end or not name.startswith(first) or not name.endswith(last):
        return False
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def nearest(name: str, aliases: Iterable[str]) -> str | None:
    """Of the aliases with wildcards that stand for the name, the one that says most of it; the first of several."""
    found = [alias for alias in aliases if WILDCARD in alias and matches(alias, name)]
    return max(found, key=lambda alias: len(alias.replace(WILDCARD, "")), default=None)
