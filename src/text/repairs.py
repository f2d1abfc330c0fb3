"""Puts a conversation as one chat template takes it, where that would refuse it or leave out what was said. Knows no tool format.

Templates were written for a system message, then user and assistant in turn. Clients send several system messages, or one in the
middle, two users in a row, text beside a call. What a template can do is found out by trying it on small conversations.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from src.text.tool_messages import Message

Messages = list[Message]
Mend = Callable[[Messages], Messages]
Try = Callable[[Messages], list[str]]  # the prompts, in which all has to be said; "" where the template refuses the messages

REMINDER = "<system-reminder>\n{}\n</system-reminder>"
OTHER_SIDE = {"user": "assistant", "assistant": "user"}
SAID = re.compile(r"PROBE\d")  # what a trial's messages say, numbered as it has to stand in the prompt
PARTS = re.compile(r"""["']type["']: ["']thinking""")  # in the prompt of a template that writes what it does not know


class Repairs:
    """The mends that one template needs."""

    def __init__(self, attempt: Try, *, calls: bool) -> None:
        """`calls`: whether the template shows calls; else they are told in words, as what the assistant says."""
        self._needed: frozenset[Mend] = frozenset()
        for messages, mends in (*TRIALS_OF_CALLS, *TRIALS) if calls else TRIALS:
            without = self._needed
            for more in ((), *((mend,) for mend in mends)):
                self._needed = without.union(more)
                if self._is_shown(attempt, messages):
                    break
            else:
                self._needed = without

    def __call__(self, messages: Messages) -> Messages:
        for mend in MENDS:
            if mend in self._needed:
                messages = mend(messages)
        return messages

    @property
    def names(self) -> list[str]:
        """Of the mends, as they are applied."""
        return [mend.__name__ for mend in MENDS if mend in self._needed]

    def _is_shown(self, attempt: Try, messages: Messages) -> bool:
        texts = sorted({*SAID.findall(repr(messages))})
        return all(_are_in_order(texts, prompt) and not PARTS.search(prompt) for prompt in attempt(self(messages)))


def _are_in_order(texts: list[str], prompt: str) -> bool:
    place = 0
    for text in texts:
        place = prompt.find(text, place)
        if place < 0:
            return False
    return True


def into_user_turn(messages: Messages) -> Messages:
    """System messages at the beginning, before what the user says first."""
    system, rest = _leading_system(messages)
    return _before(rest, system) if len(rest) < len(messages) else messages


def beside_last_user(messages: Messages) -> Messages:
    """System messages at the beginning, where a template shows them in a user's message, and only if that is the last one."""
    system, rest = _leading_system(messages)
    last = max((place for place, message in enumerate(rest) if message["role"] == "user"), default=None)
    if not system or last is None or last == len(rest) - 1:
        return messages
    return [*rest[:last], *_before(rest[last:], system)]


def merged_system(messages: Messages) -> Messages:
    system, rest = _leading_system(messages)
    return [{**messages[0], "content": system}, *rest] if len(rest) < len(messages) else messages


def folded_system(messages: Messages) -> Messages:
    """A system message behind the beginning, in the user's message that follows it, else in what it follows: at the beginning it would
    change the prompt from there on. So it stays where it is as the conversation goes on."""
    rest = _leading_system(messages)[1]
    found = messages[: len(messages) - len(rest)]
    waiting: list[str] = []
    for message in rest:
        if message["role"] == "system":
            waiting.append(REMINDER.format(message["content"] or ""))
            continue
        if waiting and message["role"] == "user":
            message = _joined({"role": "user", "content": "\n\n".join(waiting)}, message)
        elif waiting:
            found = _behind(found, waiting)
        waiting = []
        found.append(message)
    return _behind(found, waiting) if waiting else found


def alternating(messages: Messages) -> Messages:
    """An empty turn between two of one side with calls or results between them: some templates do not count these."""
    found: Messages = []
    side = ""
    for message in messages:
        if message["role"] in OTHER_SIDE and not message.get("tool_calls"):
            if message["role"] == side and found[-1]["role"] != side:
                found.append({"role": OTHER_SIDE[side], "content": ""})
            side = message["role"]
        found.append(message)
    return found


def joined_turns(messages: Messages) -> Messages:
    found: Messages = []
    for message in messages:
        previous = found[-1] if found else None
        if previous and _may_join(previous, message):
            found[-1] = _joined(previous, message)
        else:
            found.append(message)
    return found


def text_apart(messages: Messages) -> Messages:
    """What is said beside a call, in a message before it."""
    return list(_apart(messages))


def past_text_apart(messages: Messages) -> Messages:
    """The same before the last answer, where a template leaves it out with the reasoning."""
    answers = (place for place, message in enumerate(messages) if message["role"] == "assistant" and not message.get("tool_calls"))
    last = max(answers, default=0)
    return [*_apart(messages[:last]), *messages[last:]]


def text_in_reasoning(messages: Messages) -> Messages:
    """What is said beside a call and its reasoning, behind that."""
    return [_with_text_in_reasoning(message) for message in messages]


def reasoning_as_thinking(messages: Messages) -> Messages:
    """By another name, as gpt-oss and LFM2.5 have it."""
    return [{**message, "thinking": message["reasoning_content"]} if message.get("reasoning_content") else message for message in messages]


def reasoning_as_part(messages: Messages) -> Messages:
    """As Ministral 3 has it."""
    return [_with_reasoning_part(message) if message.get("reasoning_content") else message for message in messages]


def _leading_system(messages: Messages) -> tuple[str, Messages]:
    """The texts of system messages at the beginning, and the messages behind them."""
    behind = next((place for place, message in enumerate(messages) if message["role"] != "system"), len(messages))
    return "\n\n".join(message["content"] for message in messages[:behind] if message["content"]), messages[behind:]


def _before(messages: Messages, text: str) -> Messages:
    said = {"role": "user", "content": text}
    if messages and messages[0]["role"] == "user":
        return [_joined(said, messages[0]), *messages[1:]]
    return [said, *messages]


def _behind(messages: Messages, reminders: list[str]) -> Messages:
    said = {"role": "user", "content": "\n\n".join(reminders)}
    if messages and messages[-1]["role"] in ("user", "tool"):
        return [*messages[:-1], _joined(messages[-1], said)]
    return [*messages, said]


def _may_join(one: Message, next: Message) -> bool:
    if one["role"] != next["role"] or one["role"] not in ("user", "assistant"):
        return False
    return not (one.get("tool_calls") or next.get("tool_calls"))


def _joined(one: Message, other: Message) -> Message:
    """The first message, with what both say."""
    texts = [message["content"] for message in (one, other) if message.get("content")]
    return {**other, **one, "content": "\n\n".join(texts)}


def _apart(messages: Messages) -> Iterator[Message]:
    for message in messages:
        if message.get("tool_calls") and message.get("content"):
            yield {"role": "assistant", "content": message["content"]}
            message = {**message, "content": None}
        yield message


def _with_text_in_reasoning(message: Message) -> Message:
    if not (message.get("tool_calls") and message.get("content") and message.get("reasoning_content")):
        return message
    return {**message, "content": None, "reasoning_content": f"{message['reasoning_content']}\n\n{message['content']}"}


def _with_reasoning_part(message: Message) -> Message:
    parts: list[dict[str, Any]] = [{"type": "thinking", "thinking": message["reasoning_content"]}]
    if message.get("content"):
        parts.append({"type": "text", "text": message["content"]})
    return {**message, "content": parts}


def _said(role: str, number: int, **more: object) -> Message:
    return {"role": role, "content": f"PROBE{number}", **more}


FUNCTION = {"name": "probe_function", "arguments": '{"probe_key": "PROBE4"}'}
CALL: Message = {"role": "assistant", "content": None, "tool_calls": [{"id": "probe0001", "type": "function", "function": FUNCTION}]}
RESULT: Message = {"role": "tool", "tool_call_id": "probe0001", "name": "probe_function", "content": "PROBE5"}
ASKED = _said("user", 1)
AFTER_CALL = [ASKED, CALL, RESULT]

# Each with the mends that may help, the first that does being taken. The mends found so far are applied to it.
TRIALS_OF_CALLS: tuple[tuple[Messages, tuple[Mend, ...]], ...] = (
    ([ASKED, {**CALL, "content": "PROBE3"}, RESULT], (text_apart,)),
    ([ASKED, {**CALL, "reasoning_content": "PROBE2"}, RESULT], (reasoning_as_thinking, reasoning_as_part)),
    ([ASKED, {**CALL, "reasoning_content": "PROBE2", "content": "PROBE3"}, RESULT], (text_in_reasoning,)),
    ([ASKED, {**CALL, "content": "PROBE3"}, RESULT, _said("assistant", 6), _said("user", 7)], (past_text_apart,)),
    ([*AFTER_CALL, _said("user", 6)], (alternating,)),
    ([ASKED, *2 * [{**CALL, "content": "PROBE3"}, RESULT], _said("user", 6)], (alternating,)),
    ([_said("system", 0), *AFTER_CALL], (beside_last_user,)),
    ([*AFTER_CALL, _said("system", 6)], (folded_system,)),
)
TRIALS: tuple[tuple[Messages, tuple[Mend, ...]], ...] = (
    ([_said("system", 1), _said("user", 2)], (into_user_turn,)),
    ([_said("system", 1), _said("system", 2), _said("user", 3)], (merged_system,)),
    ([_said("user", 1), _said("user", 2), _said("assistant", 3), _said("assistant", 4), _said("user", 5)], (joined_turns,)),
    ([_said("system", 1), _said("user", 2), _said("assistant", 3), _said("system", 4), _said("user", 5)], (folded_system,)),
    ([_said("user", 1), _said("system", 2)], (folded_system,)),
)
# In the order in which they are applied.
MENDS: tuple[Mend, ...] = (
    *(past_text_apart, text_in_reasoning, text_apart, reasoning_as_thinking, reasoning_as_part),
    *(merged_system, folded_system, into_user_turn, beside_last_user, joined_turns, alternating),
)
