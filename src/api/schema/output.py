"""What each route answers, as JSON schemas for /openapi.json: the fields that are always there."""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
YES_OR_NO: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "array", "items": TEXT}


def one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def many(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def fields(**properties: Schema) -> Schema:
    """An object that has all of these, and may have more."""
    return {"type": "object", "properties": properties, "required": list(properties)}


ERROR = fields(error=fields(message=TEXT, type=TEXT, param=or_null(TEXT), code=or_null(TEXT)))
ANTHROPIC_ERROR = fields(type=one_of("error"), error=fields(type=TEXT, message=TEXT), request_id=TEXT)
EVENT = fields(data=TEXT)  # of a stream
USAGE = fields(
    prompt_tokens=WHOLE,
    completion_tokens=WHOLE,
    total_tokens=WHOLE,
    prompt_tokens_details=fields(cached_tokens=WHOLE),
    completion_tokens_details=fields(reasoning_tokens=WHOLE),
)
HEAD = {"id": TEXT, "created": WHOLE, "model": TEXT, "system_fingerprint": or_null(TEXT)}
FINISH = one_of("stop", "length", "tool_calls")
CHAT = fields(
    **HEAD,
    object=one_of("chat.completion"),
    choices=many(fields(index=WHOLE, message=fields(role=one_of("assistant"), content=or_null(TEXT)), finish_reason=FINISH)),
    usage=USAGE,
)
COMPLETION = fields(
    **HEAD, object=one_of("text_completion"), choices=many(fields(index=WHOLE, text=TEXT, finish_reason=FINISH)), usage=USAGE
)
MESSAGE = fields(
    id=TEXT,
    type=one_of("message"),
    role=one_of("assistant"),
    model=TEXT,
    content=many(fields(type=one_of("text", "thinking", "tool_use"))),
    stop_reason=one_of("end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"),
    stop_sequence=or_null(TEXT),
    usage=fields(input_tokens=WHOLE, cache_creation_input_tokens=WHOLE, cache_read_input_tokens=WHOLE, output_tokens=WHOLE),
)
RESPONSE = fields(
    id=TEXT,
    object=one_of("response"),
    created_at=NUMBER,
    status=one_of("completed", "incomplete"),
    model=TEXT,
    output=many(fields(id=TEXT, type=one_of("message", "function_call", "reasoning"), status=one_of("completed", "incomplete"))),
    usage=fields(input_tokens=WHOLE, output_tokens=WHOLE, total_tokens=WHOLE),
    store=YES_OR_NO,
)
DELETED = fields(id=TEXT, object=one_of("response"), deleted=YES_OR_NO)
EMBEDDINGS = fields(
    object=one_of("list"),
    model=TEXT,
    data=many(fields(object=one_of("embedding"), index=WHOLE, embedding={"anyOf": [many(NUMBER), TEXT]})),
    usage=fields(prompt_tokens=WHOLE, total_tokens=WHOLE),
)
TOKENIZED = fields(count=WHOLE, max_model_len=WHOLE, tokens=many(WHOLE), token_strs=or_null(TEXTS))
DETOKENIZED = fields(prompt=TEXT)
TEMPLATE = fields(prompt=TEXT, count=WHOLE, max_model_len=WHOLE, tokens=many(WHOLE))
TOKENIZER = fields(
    tokenizer_class=TEXT,
    bos_token=or_null(TEXT),
    eos_token=or_null(TEXT),
    pad_token=or_null(TEXT),
    chat_template=or_null(TEXT),
    vocab_size=WHOLE,
    model_max_length=WHOLE,
)
INPUT_TOKENS = fields(object=one_of("response.input_tokens"), input_tokens=WHOLE)
COUNTED = fields(input_tokens=WHOLE)
MODEL = fields(
    id=TEXT,
    object=one_of("model"),
    created=WHOLE,
    owned_by=TEXT,
    state=one_of("available", "loading", "ready", "failed", "unloading"),
    reason=or_null(TEXT),
    format=TEXT,
    size_bytes=WHOLE,
    engine=or_null(TEXT),
    context_length=or_null(WHOLE),
    context_window=or_null(WHOLE),
    max_model_len=or_null(WHOLE),
    max_input_tokens=or_null(WHOLE),
    capabilities=TEXTS,
    aliases=TEXTS,
)
MODELS = fields(object=one_of("list"), data=many(MODEL))
ANTHROPIC_MODEL = fields(type=one_of("model"), id=TEXT, display_name=TEXT, created_at=TEXT)
ANTHROPIC_MODELS = fields(data=many(ANTHROPIC_MODEL), has_more=YES_OR_NO, first_id=or_null(TEXT), last_id=or_null(TEXT))
ANY_MODEL: Schema = {"anyOf": [MODEL, ANTHROPIC_MODEL]}  # by the request's headers
ANY_MODELS: Schema = {"anyOf": [MODELS, ANTHROPIC_MODELS]}
PLAN = fields(model=TEXT, fits=YES_OR_NO, reason=or_null(TEXT), engines={"type": "object"}, memory_bytes={"type": "object"})
DOWNLOAD = fields(name=TEXT, repo=TEXT, source=TEXT, stage=TEXT)
DOWNLOADS = fields(object=one_of("list"), data=many(DOWNLOAD))
KEY = {"object": one_of("key"), "name": TEXT, "scopes": TEXTS}
KEYS = fields(object=one_of("list"), data=many(fields(**KEY)))
NEW_KEY = fields(**KEY, key=TEXT)
REVOKED = fields(object=one_of("key"), name=TEXT, deleted=YES_OR_NO)
LOG_LEVEL = fields(level=TEXT)
HEALTHY = fields(status=one_of("ok"), models_ready=TEXTS)
UNHEALTHY = fields(status=TEXT, reason=TEXT)
STATUS = fields(uptime_seconds=NUMBER, engines={"type": "object"}, models=many({"type": "object"}), requests={"type": "object"})
WHERE = fields(message=TEXT, openai_base_url=TEXT, anthropic_base_url=TEXT, models=TEXT, health=TEXT, routes=TEXT)
HELLO = fields(message=TEXT)
ITSELF = fields(openapi=TEXT, info={"type": "object"}, paths={"type": "object"})
