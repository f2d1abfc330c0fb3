"""JSON Schema documents: where the schemas in them are, and where their references lead. Validates nothing.

Source: https://json-schema.org/draft/2020-12/json-schema-core, sections 8.2 and 10.
"""

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

Schema = dict[str, Any]

TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
DATA = frozenset({"const", "enum", "default", "examples", "example"})  # keywords whose values are no schemas
BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})  # schemas by names of the author's
OF_DOCUMENT = frozenset({"$id", "$anchor", "$schema", "$defs", "definitions"})  # where no reference needs them
MOST_HOPS = 16  # from reference to reference


def changed(schema: Schema, change: Callable[[Any], Any]) -> Schema:
    """The schema with `change` made of the values of its keywords, but for data; of each of them, where they are several."""
    return {keyword: _changed(keyword, value, change) for keyword, value in schema.items()}


def _changed(keyword: str, value: Any, change: Callable[[Any], Any]) -> Any:
    if keyword in DATA:
        return value
    if keyword in BY_NAME and isinstance(value, dict):
        return {name: change(one) for name, one in value.items()}
    return [change(one) for one in value] if isinstance(value, list) else change(value)


def parts(schema: Schema) -> list[Any]:
    """What `changed` would change."""
    found: list[Any] = []
    changed(schema, found.append)
    return found


class Document:
    """A schema with all that is in it. For schemas of bounded depth."""

    def __init__(self, root: Schema) -> None:
        self.root = root
        self._resources: dict[str, Schema] = {}  # by their URIs
        self._anchors: dict[tuple[str, str], Schema] = {}  # by the URI of their resource and their name
        self._bases: dict[int, str] = {}  # of each schema: the URI that its references are relative to
        self._add(root, "")

    def resolved(self, schema: Any) -> Any:
        """The schema that one of the document refers to; itself, where it refers to nothing that is there."""
        for _ in range(MOST_HOPS):
            target = self._target(schema)
            if target is None:
                break
            schema = target
        return schema

    def whole(self, schema: Schema) -> Schema:
        """The schema with the keywords of the one that it refers to."""
        target = self.resolved(schema)
        return {**target, **schema} if isinstance(target, dict) else schema

    def extracted(self, schema: Schema) -> Schema:
        """A schema of the document as a document of its own: what it refers to is in its $defs, and there is no other."""
        places: dict[int, str] = {id(schema): "#"}
        targets: list[Any] = []

        def moved(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            found = changed({key: one for key, one in value.items() if key not in OF_DOCUMENT}, moved)
            target = self._target(value)
            if target is None:
                return found
            if id(target) not in places:
                places[id(target)] = f"#/$defs/part{len(targets)}"
                targets.append(target)
            return {**found, "$ref": places[id(target)]}

        whole = moved(schema)
        parts = {f"part{place}": moved(target) for place, target in enumerate(targets)}  # the list grows meanwhile
        return {**whole, "$defs": parts} if parts else whole

    def _add(self, value: Any, base: str) -> None:
        if not isinstance(value, dict):
            return
        if isinstance(uri := value.get("$id"), str) and not uri.startswith("#"):
            base = _joined(base, urldefrag(uri).url)
            self._resources.setdefault(base, value)
        names = (value.get("$anchor"), uri[1:] if isinstance(uri, str) and uri.startswith("#") else None)  # draft 7's is an $id
        self._anchors |= {(base, name): value for name in names if isinstance(name, str)}
        self._bases[id(value)] = base
        changed(value, lambda inner: self._add(inner, base))

    def _target(self, schema: Any) -> Any:
        """What a schema's own reference leads to; None where it has none, or there is nothing."""
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(reference, str):
            return None
        uri, fragment = urldefrag(reference)
        base = self._bases.get(id(schema), "")
        target = self._at(_joined(base, uri) if uri else base, unquote(fragment))
        # Many an author gives a part an $id and still counts from the document's root.
        return self._at("", unquote(fragment)) if target is None and not uri else target

    def _at(self, uri: str, fragment: str) -> Any:
        value: Any = self._resources.get(uri) if uri else self.root
        if fragment and not fragment.startswith("/"):
            return self._anchors.get((uri, fragment))
        for part in fragment.split("/")[1:]:
            value = _inside(value, part.replace("~1", "/").replace("~0", "~"))
        return value if isinstance(value, (dict, bool)) else None


def _inside(value: Any, part: str) -> Any:
    if isinstance(value, list):
        return value[int(part)] if part.isdecimal() and len(part) < 10 and int(part) < len(value) else None
    return value.get(part) if isinstance(value, dict) else None


def _joined(base: str, uri: str) -> str:
    try:
        return urljoin(base, uri)
    except ValueError:
        return uri
