"""The four forms of a prompt without a chat template: a text, its tokens, or several of either."""

from typing import Annotated, Any, TypeVar

from pydantic import Discriminator, Field, Tag

from src.api.schema.generation import MAX_TOKENS, TokenId
from src.api.schema.limits import AtMost
from src.errors import ContextLengthExceeded

TokenList = Annotated[list[TokenId], Field(min_length=1), AtMost(MAX_TOKENS), AtMost("max_prompt_tokens", ContextLengthExceeded)]
Text = TypeVar("Text")
Texts = TypeVar("Texts")
TokenLists = TypeVar("TokenLists")


def _form(value: Any) -> str:
    if not isinstance(value, list):
        return "as string"
    first = value[0] if value else 0
    return "as strings" if isinstance(first, str) else "as token lists" if isinstance(first, list) else "as tokens"


OneOrMore = Annotated[
    Annotated[Text, Tag("as string")]
    | Annotated[TokenList, Tag("as tokens")]
    | Annotated[Texts, Tag("as strings")]
    | Annotated[TokenLists, Tag("as token lists")],
    Discriminator(_form),
]


def each(prompt: Any) -> list[str | list[int]]:
    """The texts and lists of tokens of any of the forms."""
    return [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else list(prompt)
