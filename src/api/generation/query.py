"""A query to a model's runner that generates nothing: sent again where the runner dies."""

import contextlib
from typing import Any

from src.api.access.scopes import sharer
from src.api.access.visibility import listed
from src.api.gateway import client_socket, gateway
from src.api.generation.blame import GUILTY, OUTSIDE, crashed
from src.api.generation.request import note_ignored
from src.api.generation.resumable import Caller, Resumable, connect, returned
from src.api.observe.record import record
from src.protocol import ChatPrompt, Message, TextPrompt, Tokenize, Tokenized


class EventCounter:
    """What came already, by its number: a runner that is asked again answers with the same events."""

    def __init__(self, request: Message) -> None:
        self.fruitless = 0
        self._request = request
        self._count = self._skip = self._crashes = 0

    @property
    def begun(self) -> bool:
        return self._count > 0

    def resume_request(self) -> Message:
        self._skip = self._count
        return self._request

    def runner_died(self, exit: str) -> None:
        self._crashes += exit not in OUTSIDE
        if self._crashes >= GUILTY:
            raise crashed(exit)

    def push(self, event: Message) -> list[Message]:
        if self._skip:
            self._skip -= 1
            return []
        self._count += 1
        self.fruitless = 0
        return [event]


class RunnerQuery(Resumable[EventCounter]):
    """Iterate over its events as far as is wanted."""

    @classmethod
    def start(cls, model: str | None, request: Message) -> "RunnerQuery":
        """Returns once a runner has the query. Raises ServiceError, ClientGone."""
        caller = Caller(gateway().manager, gateway().deadline(), client_socket())
        ready, _, generation = returned(connect(caller, model, lambda ready: request, listed()))
        record().model = ready.model
        return cls(caller, ready, EventCounter(request), generation)


def ask(model: str | None, request: Message) -> tuple[str, RunnerQuery]:
    """The model's name, and what answers: it is the caller's to close. Raises ServiceError, ClientGone."""
    query = RunnerQuery.start(model, request)
    return query.ready.model, query


def ask_once(model: str | None, request: Message) -> Any:
    """The one message that answers a request. Raises ServiceError, ClientGone."""
    _, events = ask(model, request)
    with contextlib.closing(events):
        return next(event for event in events if event is not None)


def tokens_of(model: str | None, prompt: ChatPrompt | TextPrompt, *, add_bos: bool = True, names: bool = False) -> Tokenized:
    """The prompt's text and tokens by the model's template and tokenizer, with their `names`. Raises ServiceError, ClientGone."""
    tokenized: Tokenized = ask_once(model, Tokenize(prompt=prompt, add_bos=add_bos, names=names, key=sharer()))
    record().prompt_tokens = len(tokenized.tokens)
    note_ignored(tokenized.ignored)
    return tokenized
