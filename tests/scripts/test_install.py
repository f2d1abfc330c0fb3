"""Which Python scripts/install takes for .venv, and how it builds llama.cpp. Runs the script among programs that only say what they are."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from src.settings import ROOT

TOOLS = "bash sh env dirname cat cksum cut grep ls mkdir mktemp mv rm rmdir sleep tail tee tr wc getconf".split()
PYTHON = """#!/bin/sh
case $1 in
-c) exec {real} -c "import sys, platform; sys.version_info = {version}; platform.machine = lambda: '{machine}'; $2" ;;
--version | -VV) echo "Python {version}" ;;
*) echo "${{0##*/}} $*" >>ran; echo "CMAKE_ARGS=$CMAKE_ARGS" >>ran; exit 1 ;;
esac
"""


class Machine:
    """A folder with the scripts, and a PATH with nothing else than what a test puts there."""

    def __init__(self, folder: Path, system: str, arm64: str) -> None:
        self.folder, self._programs = folder, folder / "bin"
        self._programs.mkdir()
        (folder / "scripts").mkdir()
        for name in ("install", "phase.sh", "llama-build.cmake", "llama-amx.h"):
            (folder / "scripts" / name).symlink_to(ROOT / "scripts" / name)
        (folder / "requirements.txt").write_text("llama-cpp-python==0.0.1\n")
        for name in TOOLS:
            (self._programs / name).symlink_to(shutil.which(name))
        self.has("uname", f'#!/bin/sh\ncase ${{1:-}} in "") echo {system} ;; *) echo {system} x86_64 ;; esac\n')
        self.has("sysctl", f"#!/bin/sh\ncase $* in *hw.optional.arm64) {arm64} ;; *) echo a processor ;; esac\n")

    def has(self, name: str, text: str) -> None:
        path = self.folder / name if "/" in name else self._programs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def has_python(self, name: str, *version: int, machine: str = "arm64") -> None:
        self.has(name, PYTHON.format(real=sys.executable, version=repr(version).replace(" ", ""), machine=machine))

    def install(self, **environ: str) -> subprocess.CompletedProcess[str]:
        """None of these Pythons can make a .venv, so that it ends there."""
        environ = {"PATH": str(self._programs), "HOME": str(self.folder), **environ}
        command = ["bash", "scripts/install", "requirements.txt"]
        return subprocess.run(command, cwd=self.folder, env=environ, capture_output=True, text=True, timeout=60)

    @property
    def ran(self) -> str:
        path = self.folder / "ran"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def mac(tmp_path) -> Machine:
    return Machine(tmp_path, "Darwin", arm64="echo 1")


@pytest.fixture
def linux(tmp_path) -> Machine:
    return Machine(tmp_path, "Linux", arm64="exit 1")


def test_on_a_mac_a_python_for_which_all_packages_are_ready_comes_first(mac):
    mac.has_python("python3", 3, 10, 9)
    mac.has_python("python3.12", 3, 12, 1)
    mac.has_python("python3.14", 3, 14, 0)
    done = mac.install()
    assert mac.ran.startswith("python3.14 -m venv --clear .venv\n")
    assert "gevent" not in done.stderr
    mac.has_python("python3.13", 3, 13, 2)
    mac.install()
    assert "python3.13 -m venv" in mac.ran


@pytest.mark.parametrize(
    ("version", "missing"), [((3, 10, 9), "no MLX, so that safetensors are not served"), ((3, 11, 4), "gevent is compiled for Python 3.11")]
)
def test_on_a_mac_an_older_one_is_taken_and_what_is_missing_is_said(mac, version, missing):
    mac.has_python("python3", *version)
    done = mac.install()
    assert mac.ran.startswith("python3 -m venv")
    assert missing in done.stderr
    assert "brew install python@3.13" in done.stderr


def test_on_a_mac_without_a_python_the_message_says_where_one_is(mac):
    mac.has_python("python3", 3, 9, 6)  # Apple's
    done = mac.install()
    assert (done.returncode, mac.ran) == (1, "")
    assert "no Python 3.10 or newer found: brew install python@3.13, or python.org's installer" in done.stderr


def test_a_python_for_intel_is_passed_over_on_apple_silicon(mac):
    mac.has_python("python3.13", 3, 13, 2, machine="x86_64")
    mac.has_python("python3", 3, 12, 1)
    mac.install()
    assert mac.ran.startswith("python3 -m venv")


def test_where_there_is_no_other_it_is_refused(mac):
    mac.has_python("python3.13", 3, 13, 2, machine="x86_64")
    mac.has_python("python3", 3, 10, 2, machine="x86_64")
    for done in (mac.install(), mac.install(PYTHON="python3.13")):
        assert (done.returncode, mac.ran) == (1, "")
        assert "python3.13 is a Python for Intel on Apple silicon" in done.stderr or "python3 is a Python for Intel" in done.stderr
        assert "brew install python@3.13" in done.stderr


def test_one_that_a_venv_was_made_of_is_refused_too(mac):
    mac.has_python("python3.13", 3, 13, 2)
    mac.has_python(".venv/bin/python", 3, 13, 2, machine="x86_64")
    done = mac.install()
    assert (done.returncode, mac.ran) == (1, "")
    assert ".venv is a Python for Intel on Apple silicon" in done.stderr
    assert "Remove .venv" in done.stderr


def test_a_mac_with_an_intel_processor_takes_it(tmp_path):
    mac = Machine(tmp_path, "Darwin", arm64="exit 1")
    mac.has_python("python3.13", 3, 13, 2, machine="x86_64")
    mac.install()
    assert mac.ran.startswith("python3.13 -m venv")


def test_elsewhere_python3_comes_first_and_nothing_is_missing(linux):
    linux.has_python("python3", 3, 10, 9, machine="x86_64")
    linux.has_python("python3.13", 3, 13, 2, machine="x86_64")
    done = linux.install()
    assert linux.ran.startswith("python3 -m venv")
    assert "MLX" not in done.stderr


@pytest.mark.parametrize(("system", "without"), [("Darwin", True), ("Linux", False)])
def test_on_a_mac_llama_cpp_is_built_without_an_openmp_that_may_be_gone_when_it_runs(tmp_path, system, without):
    machine = Machine(tmp_path, system, arm64="echo 1")
    machine.has_python(".venv/bin/python", 3, 13, 2)
    machine.has("c++", "#!/bin/sh\n")
    machine.install(CMAKE_ARGS="-DX=1")
    [arguments] = {line for line in machine.ran.splitlines() if line.startswith("CMAKE_ARGS=-DLLAVA_BUILD")}
    assert arguments.endswith(" -DX=1")
    assert ("-DGGML_OPENMP=OFF" in arguments) == without
