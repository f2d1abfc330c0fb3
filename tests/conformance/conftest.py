"""The suite of the HTTP contract: one set of cases for every engine, and for any other server.

    pytest tests/conformance --engine llama_cpp     # or mlx, vllm, echo; more than one, by naming the option again
    pytest tests/conformance --url http://127.0.0.1:8080 [--model NAME]
    CONFORMANCE_ENGINE=mlx pytest

Cases speak HTTP and know the contract alone: not the model, whose words they never rely on, and nothing under src/. Every
case belongs to a feature; `--results FILE` has the outcome of each, for the matrix in docs/API.md.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conformance.api import Api
from tests.conformance.results import Results

FAKE = "echo"
QUICK = [FAKE]  # what a run without --engine tests: the others take minutes


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--engine", action="append", help="engine to serve the built-in model with")
    group.addoption("--url", help="a server that runs already, anybody's, in place of an engine")
    group.addoption("--model", help="model to ask for; the first of GET /v1/models where it is not given")
    group.addoption("--api-key", default="none")
    group.addoption("--name", help="name of the server in the matrix, with --url")
    group.addoption("--results", type=Path, help="JSON file for the outcome of every case")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "feature(name): the row of the matrix that a case belongs to")
    config.addinivalue_line("markers", "drawn: a case that the echo engine cannot have, which draws nothing and computes no prompt")
    results = Results(config.getoption("--results", None), explain=bool(config.getoption("--url", None)))
    config.pluginmanager.register(results, "conformance-results")


def columns(config: pytest.Config) -> list[str]:
    """What is tested, as the matrix names it."""
    if url := config.getoption("--url", None):
        return [config.getoption("--name") or url]
    chosen = config.getoption("--engine", None) or os.environ.get("CONFORMANCE_ENGINE", "").split()
    return chosen or QUICK


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "column" in metafunc.fixturenames:
        metafunc.parametrize("column", columns(metafunc.config), ids=lambda name: f"on {name}", scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left = [item for item in items if item.get_closest_marker("drawn") and item.callspec.params.get("column") == FAKE]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    for item in items:
        if getattr(item, "callspec", None) and item.callspec.params.get("column") == FAKE:
            item.add_marker(pytest.mark.slow)
        if "server_url" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(400))  # the first of them has its server started


@pytest.fixture(scope="session")
def server_url(request: pytest.FixtureRequest, column: str) -> Iterator[str]:
    if url := request.config.getoption("--url", None):
        yield url
        return
    from tests.conformance.own import serve

    with serve(column) as server:
        yield server.url


@pytest.fixture(scope="session")
def api(request: pytest.FixtureRequest, server_url: str) -> Iterator[Api]:
    key = request.config.getoption("--api-key", "none")
    model = request.config.getoption("--model", None)
    if model is None:
        listed = httpx.get(f"{server_url}/v1/models", headers={"Authorization": f"Bearer {key}"}, timeout=60).json()
        loaded = [entry for entry in listed["data"] if entry.get("state") == "ready"]
        model = (loaded or listed["data"])[0]["id"]
    # Some servers close a connection just when the next request is sent on it: that is not what their column tells of.
    api = Api(server_url, model, key, keep_alive=not request.config.getoption("--url", None))
    yield api
    api.http.close()


@pytest.fixture(scope="session")
def embedding_api(request: pytest.FixtureRequest, column: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api | None]:
    """Of an engine of ours that does not embed with a model that writes, a server of one that was made to embed; else None."""
    from tests.conformance.own import APART, embedder, serve

    if request.config.getoption("--url", None) or column not in APART:
        yield None
        return
    folder = embedder(tmp_path_factory.mktemp("embedder"))
    with serve(column, folder.parent) as server:
        other = Api(server.url, folder.name, "none", keep_alive=True)
        yield other
        other.http.close()


@pytest.fixture(params=["plain", "streamed"])
def either(request: pytest.FixtureRequest, api: Api) -> Iterator[Api]:
    """Asks for a plain answer, or for a streamed one that has to be equal to it."""
    api.streams = request.param == "streamed"
    yield api
    api.streams = False
