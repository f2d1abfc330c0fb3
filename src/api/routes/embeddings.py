"""POST /v1/embeddings."""

import base64
import contextlib
import sys
from array import array

import flask
import msgspec
from msgspec.structs import replace

from src.api.access.scopes import sharer
from src.api.body import accept
from src.api.gateway import json_response
from src.api.generation.query import ask
from src.api.observe.record import record
from src.api.schema.embedding import EmbeddingRequest
from src.protocol import Embedded, Finished

blueprint = flask.Blueprint("embeddings", __name__)


@blueprint.post("/v1/embeddings")
def create() -> flask.Response:
    request = accept(EmbeddingRequest)
    model, events = ask(request.model, replace(request.embed(), key=sharer()))
    vectors: list[msgspec.Raw] = []  # encoded as they come: thousands at once would keep streams waiting
    with contextlib.closing(events):
        for event in events:
            if isinstance(event, Embedded):
                vectors.append(_encoded(event.vector, as_base64=request.encoding_format == "base64"))
            elif isinstance(event, Finished):
                tokens = record().prompt_tokens = event.prompt_tokens
                break
    return json_response(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)],
            "model": model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _encoded(vector: bytes, *, as_base64: bool) -> msgspec.Raw:
    """As JSON: a list of numbers, or base64 of the 32-bit floats, the lowest byte first."""
    if as_base64:
        return msgspec.Raw(msgspec.json.encode(base64.b64encode(vector).decode()))
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return msgspec.Raw(msgspec.json.encode(numbers.tolist()))
