"""POST /v1/embeddings: its body."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from src.api.schema.fields import ModelName, Strict
from src.api.schema.limits import AtMost
from src.api.schema.prompt import OneOrMore, TokenList, each
from src.protocol import Embed, TextPrompt, TokenPrompt

Text = Annotated[str, StringConstraints(min_length=1)]
Several = AtMost("max_inputs")
Input = OneOrMore[Text, Annotated[list[Text], Several], Annotated[list[TokenList], Several]]


class EmbeddingRequest(Strict):
    model: ModelName | None = None
    input: Input
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, le=2**20)

    def embed(self) -> Embed:
        prompts = [TextPrompt(text=text) if isinstance(text, str) else TokenPrompt(tokens=text) for text in each(self.input)]
        return Embed(prompts=prompts, dimensions=self.dimensions)
