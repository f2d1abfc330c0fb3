"""What the groups of settings are made of. Knows no setting."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

ROOT = Path(__file__).resolve().parents[2]


class Group(BaseModel):
    """Some settings. The environment's name of a field is the field's name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def words(text: str) -> list[str]:
    """A setting that lists some, with commas between."""
    return [word.strip() for word in text.split(",") if word.strip()]
