"""Turns every failure into an OpenAI error: the one place that does. Knows no route."""

from collections.abc import Callable, Iterator

import flask
import msgspec
from loguru import logger
from werkzeug import exceptions as http

from src import errors
from src.api.record import CLIENT_CLOSED, Record, record
from src.api.shapes import body_for, openai_event
from src.errors import ClientGone, ServiceError

# SDKs would send these again by themselves, and the same would happen again.
_NOT_TO_RETRY = {
    errors.ChatTemplateError.code,
    errors.ChatTemplateTooCostly.code,
    errors.EngineCrashed.code,
    errors.RequestTimeout.code,
}

_HTTP_ERRORS: dict[int, tuple[type[ServiceError], str]] = {
    404: (errors.NotFound, "There is no such route: {method} {path}. docs/API.md lists them."),
    405: (errors.MethodNotAllowed, "{path} does not take {method}."),
    408: (errors.BodyTimeout, "The request's body took longer to arrive than BODY_TIMEOUT allows."),
    413: (errors.BodyTooLarge, "The request's body is larger than MAX_BODY_BYTES allows."),
    415: (
        errors.UnsupportedMediaType,
        "The body has to be JSON, not compressed: send Content-Type: application/json, and no Content-Encoding.",
    ),
}


def as_service_error(error: BaseException, of: Record) -> ServiceError:
    """The error to answer the request `of` with. One that is nobody's fault but ours is logged with its traceback, and told without."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, http.HTTPException) and error.code is not None:
        kind, text = _HTTP_ERRORS.get(error.code, (errors.InvalidValue, "The request is not valid HTTP: " + (error.description or "")))
        return kind(text.format(method=flask.request.method, path=flask.request.path[:200]))
    logger.opt(exception=error).error("Request {} failed", of.id)
    return errors.InternalError("The server made a mistake. Its errors.log says which, under this response's X-Request-ID.")


def respond(error: Exception) -> flask.Response:
    """The response for an error raised before any byte of a response was sent."""
    if isinstance(error, ClientGone):
        record().error = "client_gone"
        return flask.Response(status=CLIENT_CLOSED)  # for the log: nobody reads this response
    failure = as_service_error(error, record())
    record().error = failure.code
    response = flask.Response(
        msgspec.json.encode(body_for(flask.request.path, failure, record().id)), status=failure.status, mimetype="application/json"
    )
    if isinstance(error, http.HTTPException):
        response.headers.extend((name, value) for name, value in error.get_headers() if name == "Allow")
    if failure.code in _NOT_TO_RETRY:
        response.headers["x-should-retry"] = "false"
    if failure.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if failure.retry_after is not None:
        response.headers["Retry-After"] = str(failure.retry_after)
    return response


def events(chunks: Iterator[bytes], last: Callable[[ServiceError], bytes] = openai_event) -> Iterator[bytes]:
    """The chunks of a response that has begun; a failure becomes its last server-sent event, without [DONE]."""
    of = record()  # taken here, while the request is at hand: the chunks are made after its context is gone
    return _events(chunks, last, of)


def _events(chunks: Iterator[bytes], last: Callable[[ServiceError], bytes], of: Record) -> Iterator[bytes]:
    try:
        yield from chunks
    except ClientGone:
        of.error = "client_gone"
    except Exception as error:
        failure = as_service_error(error, of)
        of.error, of.broken_off = failure.code, failure.status
        yield last(failure)
