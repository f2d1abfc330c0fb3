"""Servers that several tests of this folder share."""

from collections.abc import Iterator

import pytest

from tests.server import Server

MODEL = "smollm2-135m"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The built-in model, as `python run.py --mode prod` serves it."""
    with Server() as server:
        yield server
