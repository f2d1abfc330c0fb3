"""scripts/launch starts an agent with what it needs to find the server, and leaves the user's own files alone."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from scripts.launch_agent import AGENTS, KEY_VARIABLE
from src.catalog.options import tomllib
from src.settings import ROOT
from tests.support.server import Server

# In an agent's place: tells what it was started with.
STAND_IN = """#!/bin/sh
env
printf 'argument: %s\\n' "$@"
"""


@pytest.fixture(scope="module")
def server():
    with Server(INFERENCE_ENGINE="echo", CONTEXT_LENGTH=13_000, disposable=True) as server:
        yield server


@pytest.fixture
def home(tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    for agent in AGENTS.values():
        (programs / agent.program).write_text(STAND_IN)
        (programs / agent.program).chmod(0o755)
    return tmp_path


def launch(server: Server, home: Path, *words: str, **environ: str) -> subprocess.CompletedProcess:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    variables |= {"HOME": str(home), "PATH": f"{home / 'programs'}:{os.environ['PATH']}", "PORT": str(server.port), **environ}
    return subprocess.run(
        [ROOT / "scripts" / "launch", *words], cwd=home, env=variables, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("agent", AGENTS)
def test_an_agent_gets_the_servers_address_and_model(server, home, agent):
    ended = launch(server, home, agent, "--key", "secret", "--", "--say", "two words")
    assert ended.returncode == 0, ended.stderr
    files = [path for path in home.rglob("*") if path.is_file() and path.parent.name != "programs"]
    assert all(path.is_relative_to(home / ".local/share/llm-inference-service/agents" / agent) for path in files)
    told = ended.stdout + "".join(path.read_text() for path in files)
    assert f"http://127.0.0.1:{server.port}" in told
    assert "echo" in told.replace(STAND_IN, "")
    assert "=secret\n" in ended.stdout
    assert ended.stdout.endswith("argument: --say\nargument: two words\n")


def test_the_files_are_what_agents_read(server, home):
    for agent in ("codex", "pi", "aider"):
        launch(server, home, agent)
    folder = home / ".local/share/llm-inference-service/agents"
    codex = tomllib.loads((folder / "codex/config.toml").read_text())
    assert (codex["model"], codex["model_context_window"]) == ("echo", 13_000)
    assert codex["model_providers"]["local"]["env_key"] == KEY_VARIABLE
    [provider] = json.loads((folder / "pi/models.json").read_text())["providers"].values()
    assert provider["models"][0]["contextWindow"] == 13_000
    assert json.loads((folder / "aider/models.json").read_text())["openai/echo"]["max_input_tokens"] == 13_000


def test_a_context_that_is_smaller_than_an_agents_first_prompt_is_told(server, home):
    assert "qwen begins with a prompt of about 14,200 tokens, and echo has 13,000" in launch(server, home, "qwen").stderr
    assert launch(server, home, "pi").stderr == ""


def test_what_would_be_done_is_shown_without_keys(server, home):
    ended = launch(server, home, "codex", "--show", "--key", "secret", "--", "exec")
    assert "CODEX_HOME=" in ended.stdout
    assert ended.stdout.count("codex exec") == 1
    assert "secret" not in ended.stdout
    assert not (home / ".local").exists()


def test_what_keeps_an_agent_from_starting_is_told(server, home):
    (home / "programs/pi").unlink()
    missing = launch(server, home, "pi", PATH=f"{home / 'programs'}:/usr/bin:/bin")
    assert (missing.returncode, "npm install -g @mariozechner/pi-coding-agent" in missing.stderr) == (1, True)
    other = launch(server, home, "codex", "--model", "gpt-5")
    assert (other.returncode, other.stderr) == (1, f"http://127.0.0.1:{server.port} has no model gpt-5: it has echo.\n")
    nobody = launch(server, home, "codex", "--url", "http://127.0.0.1:1")
    assert (nobody.returncode, "Start the server: ./scripts/start" in nobody.stderr) == (1, True)
