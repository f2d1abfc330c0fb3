"""Parts of messages that are no text: refused by their place, and never fetched."""

import http.server
import threading

import pytest

from tests.conformance.api import CHAT, MESSAGES, RESPONSES, refused

pytestmark = pytest.mark.feature("unsupported contents")

TINY = "data:image/png;base64,iVBORw0KGgo="
PARTS = [
    {"type": "image_url", "image_url": {"url": TINY}},
    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    {"type": "file", "file": {"file_id": "file-1"}},
    {"type": "video_url", "video_url": {"url": "http://127.0.0.1/film.mp4"}},
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part["type"])
def test_a_part_that_is_no_text_is_refused_by_its_place(api, part):
    messages = [{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "Look:"}, part]}]
    api.refuse(CHAT, {"messages": messages}, 400, "unsupported_content", "messages[1].content[1]")


def test_the_address_of_a_picture_is_never_fetched(api):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/picture.png"
        part = {"type": "image_url", "image_url": {"url": url}}
        refused(api.post(CHAT, {"messages": [{"role": "user", "content": [part]}]}), 400, "unsupported_content", "messages[0].content[0]")
        server.shutdown()
    assert asked == []


def test_a_type_that_nobody_knows_is_refused(api):
    messages = [{"role": "user", "content": [{"type": "smell", "smell": "rose"}]}]
    api.refuse(CHAT, {"messages": messages}, 400, "invalid_value", "messages[0].content[0].type")


def test_pictures_in_anthropics_messages_are_refused(api):
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    body = {"max_tokens": 4, "messages": [{"role": "user", "content": [{"type": "image", "source": source}]}]}
    assert api.post(MESSAGES, body).status_code == 400


def test_pictures_in_responses_are_refused(api):
    body = {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": TINY}]}]}
    assert api.post(RESPONSES, body).json()["error"]["code"] == "unsupported_content"
