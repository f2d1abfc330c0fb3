"""The four forms of what a model is given as it stands: a text, its tokens, or several of either. Knows no route and no limit."""

from typing import Annotated, Any, TypeVar

from pydantic import Discriminator, Field, Tag

from src.api.schema.generation import TokenId

TokenList = Annotated[list[TokenId], Field(min_length=1)]
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


def each(given: Any) -> list[str | list[int]]:
    """The texts and lists of tokens of any of the forms."""
    return [given] if isinstance(given, str) or isinstance(given[0], int) else list(given)
