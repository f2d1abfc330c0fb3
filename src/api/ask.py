"""A question to a model's runner that needs no generation: asked anew where the runner dies. Knows no kind of question."""

from collections.abc import Iterator
from typing import Any

from src.api import access
from src.api.pursuit import FRUITLESS_TRIES, GUILTY, OUTSIDE, connect, crashed
from src.api.record import record
from src.api.service import client_socket, service
from src.errors import EngineUnavailable
from src.protocol import Message


class Question:
    """Iterate over what answers it, till it is enough; None among it means that nothing came for a while.

    A runner that dies is a pause: the next one is asked, and what has come already is not given again.
    """

    def __init__(self, model: str | None, request: Message) -> None:
        """Raises ServiceError, ClientGone."""
        access.see(model)
        self._model, self._request = model, request
        self._manager, self._client, self._deadline = service().manager, client_socket(), service().deadline()
        self._begin()
        self.model = record().model = self._ready.model

    def __iter__(self) -> Iterator[Any]:
        given = deaths = 0
        for attempt in range(FRUITLESS_TRIES + 1):
            skip = given
            try:
                for event in self._generation:
                    if event is not None and skip:
                        skip -= 1
                        continue
                    given += event is not None
                    yield event
            except EngineUnavailable:
                self.close()
                if attempt == FRUITLESS_TRIES:
                    raise
            before = self._ready
            self._begin()
            deaths += self._ready.pid != before.pid
            if deaths >= GUILTY and self._ready.predecessor and self._ready.predecessor not in OUTSIDE:
                raise crashed(self._ready.predecessor)

    def close(self) -> None:
        """Cancel it. Safe to call twice."""
        self._generation.close()

    def _begin(self) -> None:
        found = connect(self._manager, self._model, lambda ready: self._request, self._deadline, self._client)
        self._ready, _, self._generation = found


def ask(model: str | None, request: Message) -> tuple[str, Question]:
    """The model's name, and what answers: it is the caller's to close. Raises ServiceError, ClientGone."""
    question = Question(model, request)
    return question.model, question
