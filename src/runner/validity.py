"""Whether a model's numbers are still numbers: how many requests in a row ended because they were not. Knows no engine."""

from src.errors import EngineError, InvalidOutput

MOST_IN_A_ROW = 5  # requests: any of them may be to blame itself, all of them hardly


class Validity:
    def __init__(self) -> None:
        self.invalid = 0  # jobs and inputs
        self._requests: list[object] = []  # in a row that ended so

    @property
    def in_a_row(self) -> int:
        return len(self._requests)

    def note(self, request: object, error: EngineError | None) -> bool:
        """A job or an input of the request has ended. Returns whether the model is not to be believed any more, once."""
        if error is None:
            self._requests.clear()
        if not isinstance(error, InvalidOutput):
            return False
        self.invalid += 1
        if request in self._requests:
            return False
        self._requests.append(request)
        return self.in_a_row == MOST_IN_A_ROW
