"""Turns every exception into an error response, or into the last event of a stream, with the field by the API's own name."""

from collections.abc import Callable, Iterator, Mapping
from itertools import dropwhile

import flask
import msgspec
from loguru import logger
from werkzeug import exceptions as http

from src import errors
from src.api.observe.record import CLIENT_CLOSED, AccessRecord, record
from src.api.render.errors import body_for, openai_event
from src.errors import ClientGone, FieldPath, ServiceError, renamed

# SDKs would retry these by themselves, and they would fail again.
_NOT_TO_RETRY = {
    errors.ChatTemplateError.code,
    errors.ChatTemplateTooCostly.code,
    errors.EngineCrashed.code,
    errors.InvalidOutput.code,
    errors.RequestTimeout.code,
}

Names = Mapping[FieldPath, FieldPath]

_HTTP_ERRORS: dict[int, tuple[type[ServiceError], str]] = {
    404: (errors.NotFound, "There is no route {method} {path}.{meant} docs/API.md lists the routes."),
    405: (errors.MethodNotAllowed, "{path} does not accept {method}."),
    408: (errors.BodyTimeout, "The request body took longer to arrive than BODY_TIMEOUT allows."),
    413: (errors.BodyTooLarge, "The request body is larger than MAX_BODY_BYTES allows."),
    415: (
        errors.UnsupportedMediaType,
        "The body must be uncompressed JSON: send Content-Type: application/json and no Content-Encoding.",
    ),
}


def as_service_error(error: BaseException, record: AccessRecord, names: Names) -> ServiceError:
    """The error to answer the request with. A fault of ours is logged with its traceback, which the client does not get."""
    if isinstance(error, ServiceError):
        error.path = renamed(error.path, names)
        return error
    if isinstance(error, http.HTTPException) and error.code is not None:
        kind, text = _HTTP_ERRORS.get(error.code, (errors.InvalidValue, "The request is not valid HTTP: " + (error.description or "")))
        method, path = flask.request.method, flask.request.path
        meant = _route_meant(method, path) if error.code == 404 else None
        told = f" Did you mean {method} {meant[:200]}?" if meant else ""
        return kind(text.format(method=method, path=path[:200], meant=told))
    logger.opt(exception=error).error("Request {} failed", record.id)
    return errors.InternalError(f"Internal server error. See errors.log, request ID {record.id}.")


def _route_meant(method: str, path: str) -> str | None:
    """The route that is there without slashes too many, for a client whose base URL has /v1 twice, or not at all."""
    parts = [part for part in path.split("/") if part]
    from_v1 = ["v1", *dropwhile(lambda part: part == "v1", parts)]
    paths = ("/" + "/".join(names) for names in (parts, from_v1))
    return next((one for one in paths if one != path and _is_route(method, one)), None)


def _is_route(method: str, path: str) -> bool:
    try:
        flask.current_app.url_map.bind("").match(path, method)
    except http.HTTPException:
        return False
    return True


def respond(error: Exception) -> flask.Response:
    """The response for an error raised before any byte of a response was sent."""
    if isinstance(error, ClientGone):
        record().error = "client_gone"
        return flask.Response(status=CLIENT_CLOSED)  # for the log: nobody reads this response
    failure = as_service_error(error, record(), _names())
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
    # Taken here, while the request is at hand: the chunks are made after its context is gone.
    return _events(chunks, last, record(), _names())


def _events(chunks: Iterator[bytes], last: Callable[[ServiceError], bytes], record: AccessRecord, names: Names) -> Iterator[bytes]:
    try:
        yield from chunks
    except ClientGone:
        record.error = "client_gone"
    except Exception as error:
        failure = as_service_error(error, record, names)
        record.error, record.stream_error_status = failure.code, failure.status
        yield last(failure)


def _names() -> Names:
    """Of a Chat's fields in the API that was asked; none before body.check() has accepted its body."""
    names: Names = flask.g.get("field_names", {})
    return names
