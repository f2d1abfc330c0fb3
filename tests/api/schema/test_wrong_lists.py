"""A wrong list costs no more than its first wrong item, in whichever field of whichever route it stands."""

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
from pydantic import ValidationError

from src.api.routes.openapi import OPERATIONS
from src.api.schema import Strict, parse
from src.errors import ServiceError

KINDS = {kind.__name__: kind for operation in OPERATIONS.values() for kind in operation.body}
MANY = 500_000
Wrap = Callable[[object], object]


def arrays(schema: dict, parts: dict, wrap: Wrap, above: tuple[str, ...] = ()) -> Iterator[tuple[dict, Wrap]]:
    """The schema of each array, and what puts a value in its place in a body. `above`: parts that it is in, which may hold themselves."""
    if ref := schema.get("$ref", "").rpartition("/")[2]:
        if ref not in above:
            yield from arrays(parts[ref], parts, wrap, (*above, ref))
        return
    for form in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from arrays(form, parts, wrap, above)
    if schema.get("type") == "array":
        yield schema, wrap
        yield from arrays(schema["items"], parts, lambda value: wrap([value]), above)
    properties = schema.get("properties", {})
    fixed = {name: of.get("const") or of["enum"][0] for name, of in properties.items() if "const" in of or "enum" in of}
    for name, of in properties.items():
        yield from arrays(of, parts, lambda value, name=name: wrap({**fixed, name: value}), above)


def arrays_of(kind: type[Strict]) -> list[tuple[dict, Wrap]]:
    schema = kind.model_json_schema()
    return list(arrays(schema, schema.get("$defs", {}), lambda body: body))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_list_has_a_bound(kind):
    assert [schema for schema, _ in arrays_of(kind) if "maxItems" not in schema] == []


def test_lists_of_all_depths_are_found():
    bodies = [wrap("here") for _, wrap in arrays_of(KINDS["ChatRequest"])]
    assert {"messages": "here"} in bodies
    assert {"messages": [{"role": "system", "content": "here"}]} in bodies
    assert {"prompt": ["here"]} in [wrap("here") for _, wrap in arrays_of(KINDS["CompletionRequest"])]


@pytest.mark.parametrize("item", ["", -1, None, 1.5, 5, [], {}], ids=repr)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_huge_wrong_list_is_refused_at_once(kind, item):
    wrong = [1, *[item] * MANY]
    for _, wrap in arrays_of(kind):
        body = wrap(wrong)
        began = time.process_time()
        with contextlib.suppress(ServiceError):  # fields that have no bound of their own take it
            parse(kind, body)
        assert time.process_time() - began < 1


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_list_ends_at_its_first_wrong_item(kind):
    for schema, wrap in arrays_of(kind):
        if schema["items"]:  # else anything may stand in it
            with pytest.raises(ValidationError) as raised:
                kind.model_validate(wrap([object()] * min(50, schema["maxItems"])))
            assert raised.value.error_count() < 10


def test_lists_within_lists_end_at_the_first_wrong_item_of_all():
    body = {"messages": [{"role": "user", "content": [1] * 2000}] * 2000}
    began = time.process_time()
    with pytest.raises(ServiceError):
        parse(KINDS["ChatRequest"], body)
    assert time.process_time() - began < 0.5


def test_a_schema_of_half_a_million_values_is_not_written_as_text():
    schema = {"enum": [1] * MANY}
    for field, value in (("guided_json", schema), ("response_format", {"type": "json_object", "schema": schema})):
        began = time.process_time()
        with pytest.raises(ServiceError, match="MAX_GRAMMAR_BYTES") as raised:
            parse(KINDS["CompletionRequest"], {"prompt": "x", field: value})
        assert raised.value.code == "invalid_schema"
        assert time.process_time() - began < 0.5
