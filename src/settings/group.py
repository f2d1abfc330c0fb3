"""What the groups of settings are made of."""

from pydantic import BaseModel, ConfigDict


class Group(BaseModel):
    """Some settings. The environment's name of a field is the field's name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def words(text: str) -> list[str]:
    """A setting that lists some, with commas between."""
    return [word.strip() for word in text.split(",") if word.strip()]
