"""Clients of others work unchanged: each chats, streams, calls functions and gets structured answers, where it has such."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clients import environments
from tests.support.programs import program
from tests.support.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MODEL = "smollm2-135m"
PROGRAMS = Path(__file__).parent / "programs"
COMMON = ["chat", "stream", "tools", "streamed_tools", "structured"]
TASKS = {
    "openai_python.py": [*COMMON, "helper_stream", "completion", "embedding", "responses", "streamed_responses"],
    "openai_node.cjs": [*COMMON, "helper_stream", "embedding", "responses"],
    "langchain_client.py": [*COMMON, "structured_by_a_function"],
    "litellm_client.py": COMMON,
    "instructor_client.py": ["chat", "tools", "structured", "streamed_structured"],
    "anthropic_client.py": ["chat", "stream", "tools", "streamed_tools"],
}


@pytest.fixture(scope="module")
def server():
    with Server(CONTEXT_LENGTH=2048, MAX_PARALLEL_SEQUENCES=2) as server:
        yield server


@pytest.fixture(scope="module")
def told(server):
    """What each program says of its tasks; a program runs once."""
    known: dict[str, dict[str, Any]] = {}

    def run(name: str) -> dict[str, Any]:
        if name not in known:
            known[name] = _run(name, server.url)
        return known[name]

    return run


def _run(name: str, url: str) -> dict[str, Any]:
    path, arguments = str(PROGRAMS / name), [url, MODEL]
    if name.endswith(".cjs"):
        command = [program("node"), path, *arguments, str(environments.node_modules())]
    else:
        # Ours is the newest openai; the others have theirs.
        interpreter = sys.executable if name == "openai_python.py" else environments.python()
        command = [str(interpreter), path, *arguments]
    environment = {**os.environ, "LANGSMITH_TRACING": "false", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _result(told: Any, program: str, task: str) -> Any:
    found = told(program)[task]
    assert "error" not in found, found["error"]
    return found["result"]


@pytest.mark.parametrize(("program", "task"), [(program, task) for program, tasks in TASKS.items() for task in tasks])
def test_a_client_does_what_it_can(told, program, task):
    result = _result(told, program, task)
    if task in ("tools", "streamed_tools"):
        name, arguments = result
        assert name == "get_weather"
        _check(json.loads(arguments) if isinstance(arguments, str) else arguments)
    elif "structured" in task:
        _check(result)
    elif task == "embedding":
        assert result > 0
    else:
        assert isinstance(result, str)
        assert result


@pytest.mark.parametrize("program", [program for program, tasks in TASKS.items() if "stream" in tasks])
def test_a_client_puts_the_same_text_together_from_a_stream(told, program):
    assert _result(told, program, "stream") == _result(told, program, "chat")


def _check(weather: dict[str, Any]) -> None:
    assert set(weather) == {"city", "metric"}
    assert weather["city"] in ("Paris", "Rome")
    assert isinstance(weather["metric"], bool)
