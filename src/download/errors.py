"""Why there is no download."""


class DownloadError(Exception):
    """One line: what happened, why, and what to do."""


class InvalidReference(DownloadError):
    """A word that is none of what it may be. `field`: which."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
