"""Bodies of the routes that turn text into tokens and back, with vLLM's names. A chat's body is that of a chat completion."""

from typing import Annotated

from src.api.schema.chat import ChatRequest
from src.api.schema.fields import ModelName, Strict
from src.api.schema.generation import MAX_TOKENS, TokenId
from src.api.schema.limits import AtMost


class TokenizeTextRequest(Strict):
    model: ModelName | None = None
    prompt: str
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class TokenizeChatRequest(ChatRequest):
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(Strict):
    model: ModelName | None = None
    tokens: Annotated[list[TokenId], AtMost(MAX_TOKENS)]
