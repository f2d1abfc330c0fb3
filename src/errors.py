"""Every failure the service can answer with. Knows HTTP status and OpenAI's error fields, but sends nothing.

ServiceError                      one refused or failed request
├── InvalidHTTP                   400  no route was reached: the request itself is malformed
├── InvalidJSON                   400  the body is not JSON, or not an object
├── InvalidValue                  400  a field has a wrong type or value; param names it
├── MissingField                  400  a required field is not there
├── UnsupportedField              400  a field this server knows but cannot honour
├── UnknownField                  400  a field it does not know, where STRICT_FIELDS refuses such
├── UnsupportedContent            400  a part of a message that is no text
├── InvalidSchema                 400  a schema, an expression or a grammar that no answer can be held to
├── ContextLengthExceeded         400  the prompt leaves no room to generate
├── NothingToDraw                 400  masks leave no token to draw: an EngineError
├── InvalidAPIKey                 401  no key, or not one of ours: which of both is not told
├── OperatorOnly                  403  only for who runs this server
├── InsufficientScope             403  the key is ours, but not for this
├── HostNotAllowed                403  asked by a name that is not this server's
├── OriginNotAllowed              403  a web page of somebody else asks
├── ModelNotFound                 404
├── NotFound                      404  no such route
├── MethodNotAllowed              405
├── HeaderTimeout                 408  the headers did not arrive in time
├── BodyTimeout                   408  the body did not arrive in time
├── BodyTooLarge                  413
├── URITooLong                    414
├── UnsupportedMediaType          415
├── ExpectationFailed             417  an Expect header that is not 100-continue
├── IdempotencyKeyReused          422  the key came with another request before
├── TooManyRequests               429  MAX_CONCURRENT_REQUESTS or a rate limit is reached
├── HeadersTooLarge               431  too many headers, or one that is too long
├── InternalError                 500  our mistake
├── EngineError                   500  the engine could not serve this one job
├── InvalidOutput                 500  the model computed NaN, infinity or a vector of zeros: an EngineError
├── EngineCrashed                 500  the engine died of this request, twice
├── ChatTemplateError             500  the model's chat template wants what no template may have
├── ChatTemplateTooCostly         500  it takes too much time or memory, or writes too much
├── UnsupportedTransferCoding     501
├── InsufficientMemory            503  nor this one, for the device's memory is used up: an EngineError
├── ModelLoading                  503
├── ModelLoadFailed               503
├── ModelDoesNotFit               503  memory or MAX_CONCURRENT_MODELS do not allow it
├── DownloadFailed                502  the source of a model refused, failed or sent something else
├── EngineUnavailable             503  the runner is gone or out of reach
├── RateLimitsUnavailable         503  Redis cannot be reached, and RATE_LIMIT_FAIL_OPEN is off
├── QueueTimeout                  503  it waited QUEUE_TIMEOUT, and was not begun
├── ServerShuttingDown            503
└── RequestTimeout                504  REQUEST_TIMEOUT is over
EngineDead                        the whole engine is lost: its runner exits, the manager starts another
ClientGone                        the client hung up: nobody is left to answer
SettingsError                     a setting is wrong: the start stops
"""

from collections.abc import Mapping

from src.public_text import without_paths

FieldPath = tuple[str | int, ...]  # of a field in a request: ("messages", 0, "content")
FIELD = "{field}"  # in a message: stands for the name of the field at the error's path
EACH = -1  # in the paths of a table of names: any place in a list


class ServiceError(Exception):
    """A request that ends in an error response. Subclasses fix status, type and code.

    The path is written by the names of OpenAI's chats until an API puts its own names in: see renamed().
    """

    status = 500
    type = "server_error"
    code: str | None = "internal_error"

    def __init__(self, message: str, param: str | FieldPath | None = None, retry_after: int | None = None) -> None:
        """`message` names the field as FIELD. `param`: its path, or its name where it is a field of the request itself."""
        super().__init__(message)
        self.template = message
        self.path: FieldPath = (param,) if isinstance(param, str) else param or ()
        self.retry_after = retry_after  # seconds; becomes the Retry-After header
        self.tokens: tuple[int, int] | None = None  # of a prompt that is too long, at least, and that it may have

    def __str__(self) -> str:
        return self.message

    @property
    def message(self) -> str:
        return self.template.replace(FIELD, self.param or "The request")

    @property
    def public_message(self) -> str:
        """For clients. What is not their fault may have an engine's words in it, or an operating system's."""
        return self.message if self.status < 500 else without_paths(self.message)

    @property
    def param(self) -> str | None:
        """The path as clients read it: messages[0].content."""
        return field_name(self.path) or None

    def body(self) -> dict[str, dict[str, str | None]]:
        """OpenAI's error object: all four keys, string or null."""
        return {"error": {"message": self.public_message, "type": self.type, "param": self.param, "code": self.code}}


class _ClientError(ServiceError):
    status = 400
    type = "invalid_request_error"


class InvalidHTTP(_ClientError):
    code = "invalid_http"


class URITooLong(_ClientError):
    status = 414
    code = "uri_too_long"


class ExpectationFailed(_ClientError):
    status = 417
    code = "expectation_failed"


class HeadersTooLarge(_ClientError):
    status = 431
    code = "headers_too_large"


class UnsupportedTransferCoding(_ClientError):
    status = 501
    code = "unsupported_transfer_coding"


class InvalidJSON(_ClientError):
    code = "invalid_json"


class InvalidValue(_ClientError):
    code = "invalid_value"


class MissingField(_ClientError):
    code = "missing_required_parameter"


class UnsupportedField(_ClientError):
    code = "unsupported_parameter"


class UnsupportedContent(_ClientError):
    code = "unsupported_content"


class UnknownField(_ClientError):
    code = "unknown_parameter"


class InvalidSchema(_ClientError):
    code = "invalid_schema"


class ContextLengthExceeded(_ClientError):
    code = "context_length_exceeded"

    def __init__(self, message: str, param: str | FieldPath | None = None, tokens: tuple[int, int] | None = None) -> None:
        super().__init__(message, param)
        self.tokens = tokens


class InvalidAPIKey(_ClientError):
    status = 401
    code = "invalid_api_key"


class OperatorOnly(_ClientError):
    status = 403
    code = "operator_only"


class InsufficientScope(_ClientError):
    status = 403
    code = "insufficient_scope"


class HostNotAllowed(_ClientError):
    status = 403
    code = "host_not_allowed"


class OriginNotAllowed(_ClientError):
    status = 403
    code = "origin_not_allowed"


class ModelNotFound(_ClientError):
    status = 404
    code = "model_not_found"


class NotFound(_ClientError):
    status = 404
    code = "not_found"


class MethodNotAllowed(_ClientError):
    status = 405
    code = "method_not_allowed"


class HeaderTimeout(_ClientError):
    status = 408
    code = "request_header_timeout"


class BodyTimeout(_ClientError):
    status = 408
    code = "request_body_timeout"


class BodyTooLarge(_ClientError):
    status = 413
    code = "request_too_large"


class UnsupportedMediaType(_ClientError):
    status = 415
    code = "unsupported_media_type"


class IdempotencyKeyReused(_ClientError):
    status = 422
    code = "idempotency_key_reused"


class TooManyRequests(ServiceError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class InternalError(ServiceError):
    pass


class EngineError(ServiceError):
    code = "engine_error"


class InvalidOutput(EngineError):
    code = "invalid_model_output"


class NothingToDraw(EngineError):
    status = 400
    type = "invalid_request_error"
    code = "nothing_to_draw"


class EngineCrashed(ServiceError):
    code = "engine_crashed"


class ChatTemplateError(ServiceError):
    code = "chat_template_error"


class ChatTemplateTooCostly(ServiceError):
    code = "chat_template_too_costly"


class InsufficientMemory(EngineError):
    status = 503
    code = "insufficient_memory"


class _Unavailable(ServiceError):
    status = 503


class ModelLoading(_Unavailable):
    code = "model_loading"


class ModelLoadFailed(_Unavailable):
    code = "model_load_failed"


class ModelDoesNotFit(_Unavailable):
    code = "model_does_not_fit"


class DownloadFailed(ServiceError):
    status = 502
    code = "download_failed"


class EngineUnavailable(_Unavailable):
    code = "engine_unavailable"


class RateLimitsUnavailable(_Unavailable):
    code = "rate_limits_unavailable"


class QueueTimeout(_Unavailable):
    code = "queue_timeout"


class ServerShuttingDown(_Unavailable):
    code = "server_shutting_down"


class RequestTimeout(ServiceError):
    status = 504
    code = "request_timeout"


class EngineDead(Exception):
    """The engine cannot go on for any job; the process that owns it must end."""


class ClientGone(Exception):
    """The HTTP client closed its connection. Not an OSError: Gunicorn swallows those raised by an application."""


class SettingsError(Exception):
    """A setting has a wrong value. The message names the key, the value and what was expected."""


def field_name(path: FieldPath) -> str:
    """As clients write it: messages[0].content."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def renamed(path: FieldPath, names: Mapping[FieldPath, FieldPath]) -> FieldPath:
    """The path by another API's names. The longest beginning of it that `names` has is replaced; what follows it stays."""
    for length in range(len(path), 0, -1):
        beginning, rest = path[:length], path[length:]
        pattern = tuple(EACH if isinstance(part, int) else part for part in beginning)
        if pattern in names:
            places = (part for part in beginning if isinstance(part, int))
            return (*(next(places) if part == EACH else part for part in names[pattern]), *rest)
    return path
