"""POST /v1/embeddings: its body."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from src.api.schema.bounds import AtMost
from src.api.schema.completion import TokenList, shape
from src.api.schema.fields import ModelName, Strict
from src.protocol import Embed, TextPrompt, TokenPrompt

Text = Annotated[str, StringConstraints(min_length=1)]
Input = Annotated[
    Annotated[Text, Tag("as string")]
    | Annotated[TokenList, Tag("as tokens")]
    | Annotated[list[Text], AtMost("max_inputs"), Tag("as strings")]
    | Annotated[list[TokenList], AtMost("max_inputs"), Tag("as token lists")],
    Discriminator(shape),
]


class EmbeddingRequest(Strict):
    model: ModelName | None = None
    input: Input
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, le=2**20)

    def embed(self) -> Embed:
        given: Any = self.input
        inputs = [given] if isinstance(given, str) or isinstance(given[0], int) else given
        prompts = [TextPrompt(text=one) if isinstance(one, str) else TokenPrompt(tokens=one) for one in inputs]
        return Embed(prompts=list(prompts), dimensions=self.dimensions)
