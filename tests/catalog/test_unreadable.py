"""A folder of models that may not be read is told from an empty one: by name in the list, the log, the status and `scripts/start`."""

import contextlib
import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from src import ROOT
from src.catalog import Catalog, Library, stamps
from tests.support.model_files import put
from tests.support.server import Server, wait_until

pytestmark = pytest.mark.macos

NOBODY = 65534
WHY = "may not be read: Permission denied"


@pytest.fixture
def models() -> Iterator[Path]:
    """A folder that everybody can reach."""
    folder = Path(tempfile.mkdtemp(prefix="test-models-", dir="/tmp")).resolve()
    folder.chmod(0o755)
    yield folder
    for inner in folder.glob("*/"):
        inner.chmod(0o755)
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def as_a_user() -> Iterator[None]:
    """root may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)


def test_a_folder_that_may_not_be_read_is_named_and_its_neighbours_are_found(models, as_a_user, monkeypatch):
    monkeypatch.setattr(stamps, "SETTLE_SECONDS", -60.0)  # every change is old enough
    with as_owner():
        put(models, "open.gguf", "shut/one.gguf", "lost+found/x")
        (models / "shut").chmod(0)
        (models / "lost+found").chmod(0)
        (models / "link").symlink_to("nowhere")
        (models / "loop").symlink_to("loop")
    library = Library(models, pytest.fail)
    listing = library.look()
    assert list(listing.entries) == ["open"]
    assert listing.unreadable == (f"{models}/shut {WHY}",)
    assert library.look() is listing, "not scanned again"
    with as_owner():
        (models / "shut").chmod(0o755)
    assert list(library.look().entries) == ["open", "shut"]
    assert library.look().unreadable == ()


@pytest.mark.parametrize("mode", [0, 0o311, 0o444], ids=["closed", "not to be listed", "its files not to be looked at"])
def test_so_is_the_models_folder_itself(models, as_a_user, mode):
    with as_owner():
        put(models, "chat.gguf")
        models.chmod(mode)
    catalog = Catalog(models)
    assert catalog.scan() == {}
    [unreadable] = catalog.unreadable
    assert str(unreadable) in (f"{models} {WHY}", f"{models}/chat.gguf {WHY}")


def test_a_folder_that_is_missing_is_not_called_unreadable(tmp_path):
    catalog = Catalog(tmp_path / "none")
    assert catalog.scan() == {}
    assert catalog.unreadable == []


def test_what_macos_refuses_is_looked_at_again_for_a_grant_changes_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(stamps, "SETTLE_SECONDS", -60.0)
    put(tmp_path, "shut/one.gguf")
    listed, granted = os.scandir, False

    def scandir(path: Path) -> object:
        if path.name == "shut" and not granted:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    library = Library(tmp_path, pytest.fail)
    assert library.look().unreadable == (f"{tmp_path}/shut may not be read: Operation not permitted",)
    granted = True
    assert list(library.look().entries) == ["shut"]


def test_many_are_not_all_told(models, as_a_user):
    with as_owner():
        for number in range(50):
            (models / str(number)).mkdir(mode=0)
    assert len(Library(models, pytest.fail).look().unreadable) == 20


@contextlib.contextmanager
def as_owner() -> Iterator[None]:
    user = os.geteuid()
    os.seteuid(os.getuid())
    yield
    os.seteuid(user)


# A whole server. One of root's has to do without what lets root read everything.

PROGRAM = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


def run(*command: str) -> list[str]:
    return [*PROGRAM, *command]


@pytest.mark.slow
@pytest.mark.skipif(bool(PROGRAM) and not shutil.which("setpriv"), reason="needs setpriv where root runs the tests")
def test_a_server_names_it_in_its_log_its_health_its_status_and_its_refusal(models):
    put(models, "shut/one.gguf")
    (models / "shut").chmod(0)
    program, *command = run(sys.executable, "run.py", "--mode", "prod")
    with Server(program=program, command=" ".join(command), MODELS_DIR=models, wait=False, disposable=True) as server:

        def unhealthy() -> httpx.Response | None:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{server.url}/health", timeout=5)
            return None

        response = wait_until(unhealthy, what="an answer")
        assert response.json()["reason"].endswith(f". shut {WHY}.")
        assert server.status()["unreadable"] == [f"shut {WHY}"]
        asked = httpx.post(f"{server.url}/v1/completions", json={"prompt": "a"}, timeout=20)
        assert asked.status_code == 404
        assert f"shut {WHY}." in asked.json()["error"]["message"]
        assert len(re.findall(f"{models}/shut {WHY}. Models that lie there are not offered", server.log("model_operations"))) == 1


@pytest.mark.skipif(bool(PROGRAM) and not shutil.which("setpriv"), reason="needs setpriv where root runs the tests")
@pytest.mark.parametrize(("shut", "fetches"), [(".", False), ("shut", True)], ids=["the whole folder", "a folder in it"])
def test_the_start_script_names_it(models, shut, fetches):
    """Its own words, without the installation before and the server after."""
    put(models, "shut/one.gguf")
    (models / shut).chmod(0)
    [code] = re.findall(r"<<'EOF'\n(.+?)\nEOF\n", (ROOT / "scripts/start").read_text(), re.DOTALL)
    done = subprocess.run(
        run(sys.executable, "-c", code), cwd=ROOT, env={**os.environ, "MODELS_DIR": str(models)}, capture_output=True, text=True
    )
    assert f"{(models / shut).resolve()} {WHY}. Let this user read it" in done.stderr
    assert (done.returncode, done.stdout) == ((0, f"{models}\n") if fetches else (1, ""))


def test_the_start_script_fetches_nothing_where_another_folder_has_a_model(models):
    put(models, "other/chat.gguf")
    [code] = re.findall(r"<<'EOF'\n(.+?)\nEOF\n", (ROOT / "scripts/start").read_text(), re.DOTALL)
    for folders, output in ((f"{models}/own,{models}/other", ""), (f"{models}/own,{models}/none", f"{models}/own\n")):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "MODELS_DIR": folders}, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (0, output)
