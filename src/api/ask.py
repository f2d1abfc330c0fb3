"""A question to a model's runner that needs no generation. Knows no kind of question."""

import time

from src.api import access
from src.api.record import record
from src.api.service import client_socket, service
from src.client import Generation
from src.errors import EngineUnavailable
from src.protocol import Message

CONNECT_TRIES = 20  # a runner may have been unloaded or have died between the manager's answer and our connection


def ask(model: str | None, request: Message) -> tuple[str, Generation]:
    """The model's name, and what answers: it is the caller's to close. Raises ServiceError, ClientGone."""
    access.see(model)
    deadline, client = service().deadline(), client_socket()
    for attempt in range(CONNECT_TRIES):
        ready = service().manager.resolve(model, deadline, client)
        record().model = ready.model
        try:
            return ready.model, Generation(ready, request, deadline, client)
        except EngineUnavailable:
            if attempt == CONNECT_TRIES - 1:
                raise
            time.sleep(0.1)  # till the manager has noticed too
    raise AssertionError("unreachable")
