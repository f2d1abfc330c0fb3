"""Bodies of requests that are not answered yet have bounded bytes: of one key half of them, and they are given back with the answer."""

import pytest

from src.api.access.bodies import BodyRoom
from src.errors import TooManyRequests
from tests.support.in_process import InProcess

ROOM = 20_000


def test_one_holder_has_half_and_all_have_the_whole():
    room = BodyRoom(100)
    room.take("a", 50)
    with pytest.raises(TooManyRequests, match="MAX_BODIES_BYTES allows 100 bytes"):
        room.take("a", 1)
    room.take("b", 30)
    room.take("c", 20)
    with pytest.raises(TooManyRequests):
        room.take("d", 1)
    room.give_back("a", 50)
    room.take("d", 50)


def test_a_body_is_held_until_its_answer_has_been_sent():
    body = b'{"prompt": "x", "max_tokens": 1, "stream": true, "padding": "' + b"y" * 6000 + b'"}'
    with InProcess(MAX_BODIES_BYTES=ROOM) as server, server.http(headers={"Content-Type": "application/json"}) as http:
        with http.stream("POST", "/v1/completions", content=body) as answer:
            assert answer.status_code == 200
            refused = http.post("/v1/completions", content=body)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert "MAX_BODIES_BYTES" in refused.json()["error"]["message"]
        for _ in range(3):
            assert http.post("/v1/completions", content=body).status_code == 200
