"""scripts/update_models.py with the hubs' real clients and real models: nothing changes without --yes or where it does not load."""

import shutil
import subprocess
import sys

import pytest

from src.settings import ROOT
from tests.support.download_folder import Folder
from tests.support.hub import Hub
from tests.support.model_files import gguf_bytes
from tests.support.server import Server, wait_until
from tests.support.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.slow

REPO = "org/small"
SOURCES = ["huggingface", "modelscope"]


@pytest.fixture
def hub():
    hub = Hub()
    hub.repositories[REPO] = {"small.gguf": tiny_gguf(), "README.md": b"first", "LICENSE": b"free" * 5000}
    yield hub
    hub.close()


@pytest.fixture(params=SOURCES)
def folder(request, tmp_path, hub):
    folder = Folder(tmp_path, hub)
    folder.environ["THREADS"] = "1"
    status, told = folder.download(REPO, "--source", request.param)
    assert status == 0, told
    hub.sent.clear()
    return folder


def update(folder: Folder, *arguments: str, **environ: object) -> tuple[int, str]:
    command = [sys.executable, "scripts/update_models.py", *arguments, "--models-dir", str(folder.path)]
    environment = {**folder.environ, **{key: str(value) for key, value in environ.items()}}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    return done.returncode, done.stdout + done.stderr


def readme(folder: Folder) -> bytes:
    return (folder.path / "small" / "README.md").read_bytes()


def test_a_model_that_is_as_its_source_has_it_is_up_to_date(folder):
    status, told = update(folder)
    assert status == 0
    assert told.startswith("small: up to date")


def test_what_would_change_is_shown_and_taken_over_only_when_asked(hub, folder):
    hub.repositories[REPO]["README.md"] = b"second"
    hub.repositories[REPO]["NOTICE"] = b"new"
    del hub.repositories[REPO]["LICENSE"]
    status, told = update(folder)
    assert status == 0
    assert "+NOTICE -LICENSE ~README.md" in told
    assert "run again with --yes" in told
    assert readme(folder) == b"first"
    status, told = update(folder, "--yes")
    assert status == 0, told
    assert "small: updated" in told
    assert readme(folder) == b"second"
    assert folder.files("small") == {"small.gguf", "README.md", "NOTICE", ".source.json"}
    assert hub.sent["small.gguf"] == 0, "what has not changed does not come again"
    assert update(folder)[1].startswith("small: up to date")


def test_an_update_is_taken_back(hub, folder):
    status, told = update(folder, "--rollback", "small")
    assert status == 1
    assert "has no version before this one" in told
    hub.repositories[REPO]["README.md"] = b"second"
    assert update(folder, "--yes")[0] == 0
    status, told = update(folder, "--rollback", "small")
    assert (status, readme(folder)) == (0, b"first"), told
    assert folder.models() == {"small": None}
    assert "~README.md" in update(folder)[1], "the new version is offered again"


@pytest.mark.parametrize("broken", ["half", "no model that loads"])
def test_a_new_version_that_does_not_load_leaves_the_old_one(hub, folder, broken):
    whole = hub.repositories[REPO]["small.gguf"]
    hub.repositories[REPO]["small.gguf"] = whole[: len(whole) // 2] if broken == "half" else gguf_bytes({"general.architecture": "llama"})
    hub.repositories[REPO]["README.md"] = b"second"
    status, told = update(folder, "--yes")
    assert status == 1
    assert "the new version does not load, so the old one stays" in told
    assert (readme(folder), folder.models()) == (b"first", {"small": None})


def test_an_update_that_was_killed_between_its_two_renames_is_put_right(hub, folder):
    shutil.move(folder.path / "small", folder.path / ".previous" / "small")
    assert folder.models() == {}
    source = "huggingface"
    folder.download(REPO, "--source", source)
    assert folder.models() == {"small": None}


def test_models_of_unknown_origin_are_left_alone(hub, folder):
    (folder.path / "mine.gguf").write_bytes(gguf_bytes())
    status, told = update(folder)
    assert (status, "mine" in told) == (0, False)
    status, told = update(folder, "mine")
    assert status == 1
    assert "not downloaded by download_model.py" in told


def test_where_nothing_was_downloaded_a_line_says_so(hub, tmp_path):
    folder = Folder(tmp_path, hub)
    (folder.path / "mine.gguf").write_bytes(gguf_bytes())
    assert update(folder) == (0, f"No model in {folder.path} was downloaded by download_model.py, so there is nothing to update.\n")


def test_a_source_that_is_gone_is_told_and_changes_nothing(hub, folder):
    del hub.repositories[REPO]
    status, told = update(folder, "--yes")
    assert status == 1
    assert "there is no model 'org/small'" in told
    assert folder.models() == {"small": None}


def test_a_running_server_puts_the_new_version_in_its_place(hub, folder):
    with Server(MODELS_DIR=folder.path, CONTEXT_LENGTH=256, MAX_PARALLEL_SEQUENCES=2) as server:
        before = server.pids("runner")
        hub.repositories[REPO]["small.gguf"] += b"\0" * 4096  # as good as before, and another file
        status, told = update(folder, "--yes", PORT=server.port)
        assert status == 0, told
        assert "the running server has put it in its place" in told
        wait_until(lambda: len(server.pids("runner")) == 1 and server.pids("runner") != before, what="the new runner alone")
