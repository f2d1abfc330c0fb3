"""gpt-oss's: an answer is messages on channels, analysis, commentary and final; a call is one to=functions.f.

Source: https://cookbook.openai.com/articles/openai-harmony. All of the answer comes in this form, so it is read also
where there are no tools; reasoning is what is on the channel analysis.
"""

import re

from src.text.json_text import written
from src.text.output.reader import Markers, Reading
from src.text.tools.call import Call, Function
from src.text.tools.json_call import JsonReader
from src.text.tools.lark import Lark, Want

CHANNEL, MESSAGE, START, END, CALL, RETURN, CONSTRAIN = (
    f"<|{name}|>" for name in ("channel", "message", "start", "end", "call", "return", "constrain")
)
MARKERS = (CHANNEL, MESSAGE, START, END, CALL, RETURN, CONSTRAIN)
RECIPIENT = re.compile(r"to=functions\.([A-Za-z0-9_.\-]+)")
TO = " to="
MOST_HEADER = 512


def is_of(template: str) -> bool:
    return CHANNEL in template and MESSAGE in template


class HarmonyReader(JsonReader):
    def _read(self) -> Reading[None]:
        heads, bodies = Markers(CHANNEL, START), Markers(MESSAGE)
        ends = Markers(END, CALL, RETURN, START, CHANNEL)
        spoken = False  # messages of content are a paragraph each
        # The prompt ends with the role: a recipient may follow it.
        marker = TO if (yield from self._literal(TO)) else (yield from self._until(heads, self._content))
        while marker:
            head: list[str] = [marker]
            if not (yield from self._until(bodies, head.append)):
                break
            header = "".join(head)[:MOST_HEADER]
            recipient = RECIPIENT.search(header)
            if recipient and recipient[1] in self._functions:
                marker = yield from self._call_of(recipient[1], ends)
            elif "analysis" in header:
                self.thinks = True
                marker = yield from self._until(ends, self._reasoning_parts.append)
                self.thinks = False
            else:
                if spoken:
                    self._content_parts.append("\n\n")
                spoken = True
                marker = yield from self._until(ends, self._content_parts.append)
            if marker not in (START, CHANNEL, ""):
                marker = yield from self._until(heads, self._content)
        self._finish()

    def _call_of(self, name: str, ends: Markers) -> Reading[str]:
        """The body of a message to a function. Returns the marker that ended it."""
        self._begin()
        yield from self._spaces()
        if (yield from self._peek()) == "{":
            self._name(name)
            yield from self._json(self._arguments)
        elif (yield from self._literal(CALL)) or self._is_over:
            self._name(name)
            self._arguments("{}")
            return CALL
        yield from self._spaces()
        self._fail()
        return (yield from self._until(ends, self._content))


reader = HarmonyReader


def write(calls: list[Call]) -> str:
    head = f"{CHANNEL}commentary to=functions."
    return f"{CALL}{START}assistant".join(f"{head}{call.name} {CONSTRAIN}json{MESSAGE}{written(call.arguments)}" for call in calls)


def grammar(lark: Lark, functions: list[Function], want: Want) -> str:
    """A message ends in a token that begins the next one, or, as the answer's last, in one that ends the answer."""
    channel, message, start = (lark.marker(text) for text in (CHANNEL, MESSAGE, START))
    body = f'{message} {lark.through(END)} {start} "assistant"'
    thought = lark.rule(f'{channel} "analysis" {body}')
    if not functions:
        return f'{thought}* {channel} "final" {message} {lark.content}'
    json = f'" " {lark.marker(CONSTRAIN)} "json" {message}'
    calls = lark.either(f"{lark.text(one.name)} {json} {lark.arguments(one)}" for one in functions)
    call = lark.rule(f'{channel} "commentary to=functions." {calls}')
    if want.forced:
        return f"{thought}* {call}"
    said = lark.rule(f'{channel} "commentary" {body}')
    final = lark.rule(f'{channel} "final" {message} {lark.content}')
    return f"({thought} | {said})* ({call} | {final})"
