"""Why there is no download."""

MAX_CHARACTERS = 1000


class DownloadError(Exception):
    """One line: what happened, why, and what to do. What a source said of it is bounded, and steers no terminal."""

    def __init__(self, text: str) -> None:
        shown = text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} …"
        super().__init__("".join(character if character.isprintable() else repr(character)[1:-1] for character in shown))


class InvalidReference(DownloadError):
    """A word that is none of what it may be. `field`: which."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
