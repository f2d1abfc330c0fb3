"""A conversation with tools, as one chat template wants it. Knows no tokens; what the template can do it finds out by trying.

Templates differ: some take a call's arguments as an object and some as its JSON, some one call a message, some no tools at
all. Where a template does not show tools or calls, they are told in words: see `tools/words.py`.
"""

import json
from itertools import islice
from typing import Any

from src.errors import ChatTemplateError, InvalidValue
from src.text.template import ChatTemplate
from src.text.tools import by_name, detect, mistral, words
from src.text.tools.call import Call, Function

Message = dict[str, Any]
NAME, KEY, RESULT, SAID = "probe_function", "probe_key", "probe_result", "probe_text"
MOST_SHOWN = 1 << 16  # characters of a prompt in which a call is looked for
MOST_PLACES, MOST_CALL = 256, 2048  # where it may begin, and its characters
ARGUMENTS = {KEY: "probe_value"}
TOOL = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "",
        "parameters": {"type": "object", "properties": {KEY: {"type": "string", "description": ""}}, "required": [KEY]},
    },
}


class History:
    def __init__(self, template: ChatTemplate, format: str | None) -> None:
        """`format`: the name of a tool format, where the template does not tell. Raises ModelLoadFailed where there is none."""
        self._template = template
        self.format = format or detect(template.source)
        self._format = by_name(self.format)
        self._shows_tools = NAME in self._try([{"role": "user", "content": SAID}], tools=[TOOL])
        shown = {form: text for form in FORMS if (text := self._shown_calls(form))}
        self._form = min(shown, key=lambda form: len(shown[form]), default=None)  # the others say something beside the call
        if format is None and self._form is None and self._shows_tools:
            # It teaches a form that only looks like one that is known here.
            self.format, self._format = "generic", by_name("generic")
        if self.format == "generic":  # what a template teaches in a form that is not known here cannot be read
            self._shows_tools, self._form = False, None
        self._one_a_message = self._form is not None and not self._shown_calls(self._form, times=2)
        self._takes_system = SAID in self._try([{"role": "system", "content": SAID}, {"role": "user", "content": ""}])

    def as_the_template_wants(
        self, messages: list[Message], tools: list[dict[str, Any]]
    ) -> tuple[list[Message], list[dict[str, Any]] | None]:
        """The messages, and the tools that the template is to show."""
        messages = _named(messages)
        if self._form is None:
            messages = words.without_calls(messages, self._format.write)
        else:
            if self._one_a_message:
                messages = _one_a_message(messages)
            messages = [self._formed(message) for message in messages]
        if not tools or self._shows_tools:
            return messages, tools or None
        return words.with_instructions(messages, words.instructions(tools, self._format.write), system=self._takes_system), None

    def _try(self, messages: list[Message], tools: list[dict[str, Any]] | None = None) -> str:
        try:
            return self._template.render(messages, tools=tools)
        except (InvalidValue, ChatTemplateError):
            return ""

    def _shown_calls(self, form: "tuple[bool, str | None]", times: int = 1) -> str:
        """A prompt with so many calls and results; "" where the template does not show them as it should."""
        ids = [f"probe000{place}" for place in range(times)]
        calls = [{"id": id, "type": "function", "function": {"name": NAME, "arguments": json.dumps(ARGUMENTS)}} for id in ids]
        results = [{"role": "tool", "tool_call_id": id, "name": NAME, "content": RESULT} for id in ids]
        asked = {"role": "assistant", "content": None, "tool_calls": calls}
        tools = [TOOL] if self._shows_tools else None
        shown = self._try([{"role": "user", "content": SAID}, _formed(asked, form), *results], tools)
        without = self._try([{"role": "user", "content": SAID}], tools)
        all_are_there = (
            shown.count(NAME) >= without.count(NAME) + times
            and shown.count(KEY) == without.count(KEY) + times
            and shown.count(RESULT) == times
        )
        is_escaped = f"'{KEY}'" in shown or f'\\"{KEY}' in shown  # Python's form of an object, JSON in JSON
        return shown if all_are_there and not is_escaped and self._can_be_read(shown) else ""

    def _can_be_read(self, shown: str) -> bool:
        """Whether the call that the template has written is one for the format's reader."""
        first = self._format.write([Call(NAME, ARGUMENTS)])[0]
        places = (place for place, character in enumerate(shown[:MOST_SHOWN]) if character == first)
        for place in islice(places, MOST_PLACES):
            reader = self._format.reader([Function(NAME)])
            said = reader.push(shown[place : place + MOST_CALL])
            said.add(reader.flush())
            if said.calls and said.calls[0].name == NAME and KEY in "".join(piece.arguments for piece in said.calls):
                return True
        return False

    def _formed(self, message: Message) -> Message:
        assert self._form
        if self.format in ("mistral", "mistral_args"):
            message = _with_short_ids(message)
        return _formed(message, self._form)


# Whether a call's arguments are an object, and what the content is where the message has only calls.
FORMS: tuple[tuple[bool, str | None], ...] = ((True, ""), (True, None), (False, ""), (False, None))


def _formed(message: Message, form: tuple[bool, str | None]) -> Message:
    if not message.get("tool_calls"):
        return message
    as_object, empty = form
    calls = message["tool_calls"]
    if as_object:
        calls = [{**call, "function": {**call["function"], "arguments": arguments_of(call)}} for call in calls]
    return {**message, "content": message.get("content") or empty, "tool_calls": calls}


def arguments_of(call: dict[str, Any]) -> Any:
    """A call's arguments as an object, where they are one."""
    text = call["function"]["arguments"]
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _named(messages: list[Message]) -> list[Message]:
    """Results with the names of their functions, which some templates show."""
    names: dict[str, str] = {}
    found = []
    for message in messages:
        for call in message.get("tool_calls") or []:
            names[call["id"]] = call["function"]["name"]
        if message["role"] == "tool" and "name" not in message and message.get("tool_call_id") in names:
            message = {**message, "name": names[message["tool_call_id"]]}
        found.append(message)
    return found


def _one_a_message(messages: list[Message]) -> list[Message]:
    """Calls that were made together one after the other, each with its result."""
    results = {message["tool_call_id"]: message for message in messages if message["role"] == "tool" and "tool_call_id" in message}
    found: list[Message] = []
    told: set[str] = set()
    for message in messages:
        calls = message.get("tool_calls") or []
        if len(calls) > 1:
            for place, call in enumerate(calls):
                found.append({**message, "content": message.get("content") if place == 0 else None, "tool_calls": [call]})
                if call["id"] in results:
                    found.append(results[call["id"]])
                    told.add(call["id"])
        elif message.get("tool_call_id") not in told:
            found.append(message)
    return found


def _with_short_ids(message: Message) -> Message:
    if message.get("tool_calls"):
        return {**message, "tool_calls": [{**call, "id": mistral.short_id(call["id"])} for call in message["tool_calls"]]}
    return {**message, "tool_call_id": mistral.short_id(message["tool_call_id"])} if "tool_call_id" in message else message
