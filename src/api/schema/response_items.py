"""Items of a Responses conversation, sent as input or kept of an earlier response, and the messages that they make."""

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag, TypeAdapter, ValidationError
from pydantic.json_schema import SkipJsonSchema

from src.api.schema.content import ResponseContent, Said, texts
from src.api.schema.conversation import Message, Part, Reasoning, Text, ToolCall, ToolResult, arguments_of
from src.api.schema.fields import AsList, AsString, ByShape, LeftOut, Name, Strict, type_of
from src.api.schema.limits import AtMost
from src.api.schema.response_tools import qualified
from src.errors import FIELD, InvalidValue
from src.settings import Limits

RESEND = "Send the whole conversation as input; with store: false, clients do so by themselves."


class ItemBase(Strict):
    """`id` and `status`: what an item has that was in a response before. They mean nothing to the model."""

    id: str | None = None
    status: str | None = None

    def seen(self) -> dict[str, Any]:
        """As JSON, but for what no model is shown: an item that is kept is kept in every response after it."""
        raise NotImplementedError


class MessageItem(ItemBase):
    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: ResponseContent | None = None

    def message(self) -> Message:
        return Message("system" if self.role == "developer" else self.role, texts(self.content))

    def seen(self) -> dict[str, Any]:
        return {"type": "message", "role": self.role, "content": _seen(self.content)}


class FunctionCallItem(ItemBase):
    type: Literal["function_call"]
    call_id: Name
    name: Name
    namespace: Name | None = None
    arguments: str | None = None

    def part(self) -> ToolCall:
        return ToolCall(self.call_id, qualified(self.namespace, self.name), arguments_of(self.arguments))

    def seen(self) -> dict[str, Any]:
        return {"type": self.type, "call_id": self.call_id, **_names(self), "arguments": self.arguments}


class CustomCallItem(ItemBase):
    type: Literal["custom_tool_call"]
    call_id: Name
    name: Name
    namespace: Name | None = None
    input: str

    def part(self) -> ToolCall:
        return ToolCall(self.call_id, qualified(self.namespace, self.name), arguments_of({"input": self.input}))

    def seen(self) -> dict[str, Any]:
        return {"type": self.type, "call_id": self.call_id, **_names(self), "input": self.input}


class FunctionOutputItem(ItemBase):
    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: Name
    output: ResponseContent | None = None

    def message(self) -> Message:
        return Message("tool", (ToolResult(self.call_id, texts(self.output)),))

    def seen(self) -> dict[str, Any]:
        return {"type": self.type, "call_id": self.call_id, "output": _seen(self.output)}


class ReasoningText(Strict):
    type: Literal["reasoning_text"]
    text: Said


class ReasoningItem(ItemBase):
    """Another server's may have a summary alone, or what only that server can read: neither is what the model thought."""

    type: Literal["reasoning"]
    summary: Annotated[list[Any], AtMost("max_content_parts")] | None = None
    content: Annotated[list[ReasoningText], AtMost("max_content_parts")] | None = None
    encrypted_content: str | None = None

    def parts(self) -> tuple[Reasoning, ...]:
        return tuple(Reasoning(part.text) for part in self.content or [] if part.text)

    def seen(self) -> dict[str, Any]:
        return {"type": self.type, "content": [{"type": "reasoning_text", "text": part.text} for part in self.parts()]}


def _seen(content: str | list[Any] | None) -> list[dict[str, str]]:
    return [{"type": "text", "text": part.text} for part in texts(content)]


def _names(call: FunctionCallItem | CustomCallItem) -> dict[str, str]:
    return {"name": call.name} if call.namespace is None else {"name": call.name, "namespace": call.namespace}


class ItemReference(Strict):
    """Stands for an item of a response before this one."""

    type: Literal["item_reference"]
    id: Name


FORMS = {
    **{kind: kind for kind in ("message", "function_call", "custom_tool_call", "reasoning", "item_reference")},
    **dict.fromkeys(("function_call_output", "custom_tool_call_output"), "call_output"),
}


def _tag(item: Any) -> str:
    return f"as {FORMS.get(type_of(item) or 'message', 'unknown')}"


Item = Annotated[
    Annotated[MessageItem, Tag("as message")]
    | Annotated[FunctionCallItem, Tag("as function_call")]
    | Annotated[CustomCallItem, Tag("as custom_tool_call")]
    | Annotated[FunctionOutputItem, Tag("as call_output")]
    | Annotated[ReasoningItem, Tag("as reasoning")]
    | Annotated[ItemReference, Tag("as item_reference")]
    | Annotated[SkipJsonSchema[LeftOut], Tag("as unknown")],
    Discriminator(_tag),
]
Input = Annotated[Annotated[str, AsString] | Annotated[list[Item], AtMost("max_input_items"), AsList], ByShape]
_ITEMS: TypeAdapter[list[Item]] = TypeAdapter(list[Item])


def role_and_content(item: Item) -> tuple[str, Any]:
    """Whose it is, and what it says; a tool's is its output."""
    if isinstance(item, MessageItem):
        return item.role, item.content
    return ("tool", None) if isinstance(item, (FunctionOutputItem, LeftOut)) else ("assistant", None)


def items_of(stored: list[dict[str, Any]], limits: Limits) -> list[Item]:
    """Items that were kept as JSON. Raises InvalidValue where the limits were others then."""
    try:
        return _ITEMS.validate_python(stored, context=limits)
    except ValidationError:
        raise InvalidValue(f"{FIELD}: the response does not fit this server's limits.", "previous_response_id") from None


def resolved(items: list[Item], find: Callable[[str], dict[str, Any] | None], limits: Limits) -> list[Item]:
    """Items with those that references stand for in their places. `find`: by its id, as JSON. Raises InvalidValue."""
    return [_found(item, place, find, limits) if isinstance(item, ItemReference) else item for place, item in enumerate(items)]


def _found(reference: ItemReference, place: int, find: Callable[[str], dict[str, Any] | None], limits: Limits) -> Item:
    item = find(reference.id)
    if item is None:
        reason = f"there is no item {reference.id[:100]!r}, or it is no longer stored. {RESEND}"
        raise InvalidValue(f"{FIELD}: {reason}", ("input", place, "id"))
    return items_of([item], limits)[0]


def seen(items: Iterable[Item]) -> list[dict[str, Any]]:
    """Items to keep as JSON, without what no model is shown."""
    return [item.seen() for item in items if isinstance(item, ItemBase)]


def messages_of(items: Iterable[Item]) -> Iterator[Message]:
    """What the assistant thought, said and called one after another is one message in a chat."""
    parts: list[Part] = []
    for item in items:
        if parts and not _continues(parts, item):
            yield Message("assistant", tuple(parts))
            parts = []
        if isinstance(item, ReasoningItem):
            parts += item.parts()
        elif isinstance(item, (FunctionCallItem, CustomCallItem)):
            parts.append(item.part())
        elif isinstance(item, MessageItem) and item.role == "assistant":
            parts = [*(part for part in parts if not isinstance(part, Text)), *item.message().parts]
        elif isinstance(item, (MessageItem, FunctionOutputItem)):
            yield item.message()
    if parts:
        yield Message("assistant", tuple(parts))


def _continues(parts: list[Part], item: Item) -> bool:
    """Whether it belongs to the assistant's message that has these parts: it thinks, then speaks, then calls."""
    if isinstance(item, (FunctionCallItem, CustomCallItem)):
        return True
    message = Message("assistant", tuple(parts))
    is_assistants = isinstance(item, ReasoningItem) or (isinstance(item, MessageItem) and item.role == "assistant")
    return is_assistants and not message.text and not message.calls
