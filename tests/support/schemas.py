"""Small JSON schemas of every kind that answers can be held to, each from a number. For tests."""

import random
from collections.abc import Callable

WORDS = ["red", "green", "blue", "low", "high", "Paris", "naïve", "a b", "日本", "{", '"', "1"]


def schema_of(number: int) -> dict:
    """The same schema for the same number. An object at the top, as OpenAI has it."""
    return _object(random.Random(number), 3)


def _object(draw: random.Random, depth: int) -> dict:
    names = draw.sample(["a", "b", "name", "the_count", "x y", "ключ", "$ref", 'q"q'], draw.randint(1, 3))
    schema: dict = {"type": "object", "properties": {name: _any(draw, depth - 1) for name in names}}
    schema["required"] = draw.sample(names, draw.randint(0, len(names)))
    if draw.random() < 0.8:
        schema["additionalProperties"] = False
    elif draw.random() < 0.5:
        schema["maxProperties"], schema["required"] = len(names) + 1, names
    else:
        schema["additionalProperties"], schema["required"] = {"type": "integer", "minimum": 0, "maximum": 9}, names
        schema["maxProperties"] = len(names) + 1
    if draw.random() < 0.2:
        schema |= {"title": "A title", "description": "What it is", "$schema": "https://json-schema.org/draft/2020-12/schema"}
    return schema


def _any(draw: random.Random, depth: int) -> dict:
    kinds: list[Callable[[random.Random, int], dict]] = [_integer, _number, _string, _enum, _const, _plain]
    if depth > 0:
        kinds += [_object, _array, _tuple, _union, _both, _reference]
    return draw.choice(kinds)(draw, depth)


def _integer(draw: random.Random, depth: int) -> dict:
    least = draw.randint(-50, 50)
    bounds = draw.choice([{"minimum": least}, {"exclusiveMinimum": least}, {"minimum": least, "multipleOf": draw.choice([2, 3, 5, 10])}])
    return {"type": "integer", **bounds, "maximum": least + draw.randint(30, 500)}


def _number(draw: random.Random, depth: int) -> dict:
    return {"type": "number", "minimum": draw.choice([-1, 0, 0.5]), "maximum": draw.choice([1, 2.25, 100])}


def _string(draw: random.Random, depth: int) -> dict:
    least = draw.randint(0, 3)
    rules = [
        {"minLength": least, "maxLength": least + draw.randint(0, 6)},
        {"pattern": draw.choice(["^[a-z]{2,5}$", "^\\d{3}-\\d{2}$", "^(yes|no)$", "^[A-Z][a-z ]{1,8}$", "^[^\\s]{1,4}$"])},
        {"format": draw.choice(["date", "time", "uuid", "ipv4", "date-time"])},
    ]
    return {"type": "string", **draw.choice(rules)}


def _enum(draw: random.Random, depth: int) -> dict:
    return {"enum": draw.sample([*WORDS, 0, -7, True, None], 3)}


def _const(draw: random.Random, depth: int) -> dict:
    return {"const": draw.choice([*WORDS, 3, False, [1, "x"], {"k": []}])}


def _plain(draw: random.Random, depth: int) -> dict:
    return draw.choice([{"type": "boolean"}, {"type": "null"}, {"type": ["boolean", "null"]}])


def _array(draw: random.Random, depth: int) -> dict:
    least = draw.randint(0, 2)
    return {"type": "array", "items": _any(draw, depth - 1), "minItems": least, "maxItems": least + draw.randint(0, 2)}


def _tuple(draw: random.Random, depth: int) -> dict:
    parts = [_any(draw, depth - 1) for _ in range(draw.randint(1, 2))]
    return {"type": "array", "prefixItems": parts, "items": False, "minItems": len(parts)}


def _union(draw: random.Random, depth: int) -> dict:
    if draw.random() < 0.4:
        return {"oneOf": [_integer(draw, 0), _string(draw, 0), {"type": "null"}]}
    return {"anyOf": [_any(draw, depth - 1), _any(draw, depth - 1)]}


def _both(draw: random.Random, depth: int) -> dict:
    return {"allOf": [{"type": "integer", "minimum": draw.randint(0, 9)}, {"maximum": draw.randint(20, 99)}]}


def _reference(draw: random.Random, depth: int) -> dict:
    """A tree: it refers to itself by its own id, for it may stand anywhere."""
    name = f"https://example.org/{draw.randrange(10**9)}"
    leaves = {"type": "array", "items": {"$ref": name}, "maxItems": draw.randint(0, 1)}
    return {"$id": name, "type": "object", "properties": {"leaves": leaves}, "required": ["leaves"], "additionalProperties": False}
