#!/usr/bin/env python3
"""Starts a coding agent against the running server.

    scripts/launch codex
    scripts/launch claude --model qwen3-30b -- --print "What does this project do?"
    scripts/launch pi --url http://studio.local:8001 --key KEY

The agent is told by variables of its own process, and by files in a folder that is only for this
(~/.local/share/llm-inference-service/agents). Its own settings in your home folder stay as they are.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.errors import SettingsError
from src.settings import Settings

KEY_VARIABLE = "INFERENCE_API_KEY"
PROVIDER = "local"
LONGEST_ANSWER = 8192  # tokens that an agent may ask for at once, of a context that holds more
SECONDS = 10


class Server(NamedTuple):
    url: str
    key: str
    model: str
    context: int  # tokens


class Start(NamedTuple):
    words: list[str]  # before the user's own
    variables: dict[str, str]
    files: dict[str, str] = {}  # noqa: RUF012 (a NamedTuple's default is never changed); by their names in the folder


class Agent(NamedTuple):
    program: str
    install: str
    first_prompt: int  # tokens, measured with the version that docs/AGENTS.md names
    start: Callable[[Server, Path], Start]


def claude(server: Server, folder: Path) -> Start:
    models = ("ANTHROPIC_MODEL", *(f"ANTHROPIC_DEFAULT_{name}_MODEL" for name in ("HAIKU", "SONNET", "OPUS")))
    return Start(
        [],
        {
            "ANTHROPIC_BASE_URL": server.url,
            "ANTHROPIC_AUTH_TOKEN": server.key,
            **dict.fromkeys(models, server.model),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "API_TIMEOUT_MS": "3600000",
        },
    )


def codex(server: Server, folder: Path) -> Start:
    config = {
        "model": server.model,
        "model_provider": PROVIDER,
        "model_context_window": server.context,
        f"model_providers.{PROVIDER}.name": PROVIDER,
        f"model_providers.{PROVIDER}.base_url": f"{server.url}/v1",
        f"model_providers.{PROVIDER}.wire_api": "responses",
        f"model_providers.{PROVIDER}.env_key": KEY_VARIABLE,
        f"model_providers.{PROVIDER}.stream_idle_timeout_ms": 3_600_000,
    }
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in config.items())  # a string of JSON is one of TOML
    return Start([], {"CODEX_HOME": str(folder), KEY_VARIABLE: server.key}, {"config.toml": lines})


def opencode(server: Server, folder: Path) -> Start:
    limits = {"context": server.context, "output": min(LONGEST_ANSWER, server.context // 2)}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": PROVIDER,
        "options": {"baseURL": f"{server.url}/v1", "apiKey": f"{{env:{KEY_VARIABLE}}}"},
        "models": {server.model: {"name": server.model, "limit": limits}},
    }
    name = f"{PROVIDER}/{server.model}"
    config = {"provider": {PROVIDER: provider}, "model": name, "small_model": name}
    return Start([], {"OPENCODE_CONFIG_CONTENT": json.dumps(config), KEY_VARIABLE: server.key})


def qwen(server: Server, folder: Path) -> Start:
    variables = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": server.key, "OPENAI_MODEL": server.model}
    return Start(["--auth-type", "openai"], variables)


def aider(server: Server, folder: Path) -> Start:
    name = f"openai/{server.model}"
    limits = {"max_input_tokens": server.context, "max_output_tokens": min(LONGEST_ANSWER, server.context // 2)}
    costs = {"input_cost_per_token": 0, "output_cost_per_token": 0}
    metadata = {name: {**limits, **costs, "litellm_provider": "openai", "mode": "chat"}}
    words = ["--model", name, "--model-metadata-file", str(folder / "models.json"), "--no-show-model-warnings"]
    variables = {"OPENAI_API_BASE": f"{server.url}/v1", "OPENAI_API_KEY": server.key}
    return Start(words, variables, {"models.json": json.dumps(metadata)})


def pi(server: Server, folder: Path) -> Start:
    model = {
        "id": server.model,
        "name": server.model,
        "reasoning": False,
        "input": ["text"],
        "contextWindow": server.context,
        "maxTokens": min(LONGEST_ANSWER, server.context // 2),
        "cost": dict.fromkeys(("input", "output", "cacheRead", "cacheWrite"), 0),
    }
    provider = {"baseUrl": f"{server.url}/v1", "api": "openai-completions", "apiKey": KEY_VARIABLE, "models": [model]}
    variables = {"PI_CODING_AGENT_DIR": str(folder), KEY_VARIABLE: server.key}
    files = {"models.json": json.dumps({"providers": {PROVIDER: provider}})}
    return Start(["--provider", PROVIDER, "--model", server.model], variables, files)


AGENTS = {
    "claude": Agent("claude", "npm install -g @anthropic-ai/claude-code", 12_300, claude),
    "codex": Agent("codex", "npm install -g @openai/codex", 6_400, codex),
    "opencode": Agent("opencode", "npm install -g opencode-ai", 7_600, opencode),
    "qwen": Agent("qwen", "npm install -g @qwen-code/qwen-code", 14_200, qwen),
    "aider": Agent("aider", "python -m pip install aider-install && aider-install", 650, aider),
    "pi": Agent("pi", "npm install -g @mariozechner/pi-coding-agent", 1_400, pi),
}


def main() -> None:
    own, theirs = _split(sys.argv[1:])
    arguments = _parser().parse_args(own)
    agent = AGENTS[arguments.agent]
    server = _server(arguments)
    if server.context < agent.first_prompt:
        print(
            f"{arguments.agent} begins with a prompt of about {agent.first_prompt:,} tokens, and {server.model} has {server.context:,}. "
            "Raise CONTEXT_LENGTH, or take a model with a longer context: docs/AGENTS.md",
            file=sys.stderr,
        )
    folder = _folder() / arguments.agent
    start = agent.start(server, folder)
    if arguments.show:
        print(_shown(agent, start, folder, theirs))
        return
    program = shutil.which(agent.program)
    if program is None:
        raise SystemExit(f"{agent.program} is not installed. Run: {agent.install}")
    _write(folder, start.files)
    os.execvpe(program, [program, *start.words, *theirs], {**os.environ, **start.variables})


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Ours, and the agent's behind `--`."""
    place = words.index("--") if "--" in words else len(words)
    return words[:place], words[place + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/launch", description="Starts a coding agent against the running server.")
    parser.add_argument("agent", choices=AGENTS)
    parser.add_argument("--model", help="one that is loaded, where it is left out")
    parser.add_argument("--url", help="of the server, where it is not this machine's")
    parser.add_argument("--key", default=os.environ.get(KEY_VARIABLE, "none"), help=f"an API key; {KEY_VARIABLE} where it is left out")
    parser.add_argument("--show", action="store_true", help="print what would be set and written, and start nothing")
    return parser


def _server(arguments: argparse.Namespace) -> Server:
    url = (arguments.url or _own_url()).rstrip("/").removesuffix("/v1")
    models = sorted(_models(url, arguments.key), key=lambda model: model["state"] != "ready")
    for model in models:
        if arguments.model in (None, model["id"], *model["aliases"]):
            return Server(url, arguments.key, model["id"], model["context_length"] or model["trained_context_length"] or 0)
    raise SystemExit(f"{url} has no model {arguments.model or ''}: it has {', '.join(model['id'] for model in models) or 'none'}.")


def _own_url() -> str:
    try:
        settings = Settings.load()
    except SettingsError as error:
        raise SystemExit(str(error)) from None
    host = "127.0.0.1" if settings.host in ("", "0.0.0.0", "::") else settings.host
    scheme = "https" if settings.tls_certfile else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _models(url: str, key: str) -> list[dict[str, Any]]:
    request = urllib.request.Request(f"{url}/v1/models", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            models: list[dict[str, Any]] = json.load(answer)["data"]
            return models
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise SystemExit(f"{url} wants an API key: --key KEY, or {KEY_VARIABLE} in the environment.") from None
        raise SystemExit(f"{url} answers {error.code}.") from None
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(f"{url} cannot be asked: {error}. Start the server: ./scripts/start") from None


def _folder() -> Path:
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "llm-inference-service" / "agents"


def _write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def _shown(agent: Agent, start: Start, folder: Path, theirs: list[str]) -> str:
    lines = [f"{name}={'…' if name.endswith(('_KEY', '_TOKEN')) else shlex.quote(value)}" for name, value in start.variables.items()]
    lines.append(shlex.join([agent.program, *start.words, *theirs]))
    for name, text in start.files.items():
        lines += [f"# {folder / name}", text]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
