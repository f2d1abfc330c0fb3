"""What only a Mac can tell, measured in about ten minutes and written to one text file, to be sent to the maintainers.

    .venv/bin/python -m tools.mac_check [--model NAME] [--sleep] [--output mac-check.txt]

Starts a server of its own with the built-in model, or with NAME of models/. The file has figures, versions and words of the system:
no prompt, no answer, no key, no log, no name of the user or the machine. Read it before you send it.
"""

import argparse
import importlib.metadata
import os
import platform
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from src import rundir
from src.manager import metal
from tools.mac_service import Measured

GIB = 2**30
COMMANDS = {
    "macOS": "sw_vers -productVersion",
    "build": "sw_vers -buildVersion",
    "chip": "sysctl -n machdep.cpu.brand_string",
    "memory, bytes": "sysctl -n hw.memsize",
    "performance cores": "sysctl -n hw.perflevel0.physicalcpu",
    "efficiency cores": "sysctl -n hw.perflevel1.physicalcpu",
    "is Apple silicon": "sysctl -n hw.optional.arm64",
    "wired limit set, MB": "sysctl -n iogpu.wired_limit_mb",
    "connections that may wait": "sysctl -n kern.ipc.somaxconn",
    "a Unix socket holds, bytes": "sysctl -n net.local.stream.sendspace",
    "started from (Aqua: a desktop, Background: ssh, System: launchd)": "launchctl managername",
    "bash": "/bin/bash -c 'echo $BASH_VERSION'",
    "FileVault": "fdesetup status",
}
PACKAGES = ["mlx", "mlx-metal", "mlx-lm", "llama-cpp-python", "gevent", "gunicorn", "psutil", "numpy"]
RLIMIT = """
import psutil, resource
limit = psutil.Process().memory_info().vms + (1 << 28)
try:
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    bytearray(1 << 30)
    print("not held")
except ValueError as error: print("refused:", error)
except MemoryError: print("held")
"""
GETFQDN = "import socket, time; began = time.monotonic(); socket.getfqdn(); print(round(time.monotonic() - began, 1))"
DEVICE = "import mlx.core as mx; print(mx.device_info())"
LATER = """What this cannot ask; please tell it below:
- the last lines of ./scripts/test
- whether the display was on, and whether anybody shared the screen
- a run as LaunchDaemon of a Mac that nobody has logged in to (docs/DEPLOYMENT.md): does it answer?
- after four days of serving, run this again: it lists the run folders"""


def run(command: list[str], seconds: float = 60) -> str:
    """What it prints, or why it does not: a figure that this Mac has not is an answer too."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"none ({type(error).__name__})"
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    return lines[-1] if done.returncode == 0 and lines else f"none (status {done.returncode}{': ' + lines[-1] if lines else ''})"


def machine() -> Iterator[str]:
    for name, command in COMMANDS.items():
        yield f"{name}: {run(['/bin/sh', '-c', command])}"
    yield f"Python: {platform.python_version()}, {platform.machine()}"
    for name in PACKAGES:
        try:
            yield f"{name}: {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{name}: none"


def gpu() -> Iterator[str]:
    total, recommended = psutil.virtual_memory().total, metal.working_set()
    yield f"working set: {recommended} of {total} bytes ({recommended / total:.3f})"
    yield f"MLX's device: {run([sys.executable, '-c', DEVICE])}"
    yield f"the GPU's answers beside the CPU's: {run([sys.executable, '-m', 'pytest', '-q', 'tests/engines/test_devices.py'])}"


def system() -> Iterator[str]:
    """Where XNU is said to be other than Linux."""
    with socket.socket(socket.AF_UNIX) as unix:
        yield f"a Unix socket holds at first: {unix.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)} bytes"
    yield f"PIPE_BUF: {select.PIPE_BUF}; POLLRDHUP: {'there' if hasattr(select, 'POLLRDHUP') else 'not there'}"
    yield f"characters of TMPDIR: {len(os.environ.get('TMPDIR', ''))}"
    yield f"the name service answers for this machine's name after: {run([sys.executable, '-c', GETFQDN])} s"
    yield f"a bound of a process's memory is: {run([sys.executable, '-c', RLIMIT])}"


def run_folders(now: float, places: list[Path] | None = None) -> Iterator[str]:
    """Whether anything was cleaned away: what lies there, and how many hours ago it was written and used."""
    folders = [*rundir.private_folders(), Path("/opt/inference/run")] if places is None else places
    for number, folder in enumerate(path for path in folders if path.is_dir()):
        yield f"folder {number}, changed {(now - folder.stat().st_ctime) / 3600:.1f} h ago"
        for path in sorted(folder.iterdir()):
            found = path.lstat()
            written, used = (now - found.st_mtime) / 3600, (now - found.st_atime) / 3600
            inside = f", {len(list(path.iterdir()))} in it" if path.is_dir() else ""
            yield f"    {path.name}: written {written:.1f} h ago, used {used:.1f} h ago{inside}"


def memory_now() -> str:
    """As the manager's plan and as macOS itself has it."""
    free = metal.free_bytes(psutil.virtual_memory().total)
    return f"free {'unknown' if free is None else f'{free / GIB:.2f} GiB'}; {run(['/usr/bin/memory_pressure', '-Q'])}"


def names_of_this_machine() -> dict[str, str]:
    """What must not leave it, and what stands for that."""
    import pwd

    user = pwd.getpwuid(os.getuid())
    computer = run(["/usr/sbin/scutil", "--get", "ComputerName"])
    host = socket.gethostname()
    names = {str(Path.home()): "~", user.pw_name: "USER", user.pw_gecos.split(",")[0]: "USER"}
    return names | {host: "HOST", host.split(".")[0]: "HOST"} | ({} if computer.startswith("none") else {computer: "HOST"})


def without(text: str, names: dict[str, str]) -> str:
    """Longest first, as a whole word, whatever its case."""
    for name in sorted(filter(None, names), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", names[name], text, flags=re.IGNORECASE)
    return text


def report(questions: dict[str, Callable[[], Iterator[str]]], names: dict[str, str]) -> str:
    """One section a question. One that fails says so, and keeps none of the others from being asked."""
    parts = []
    for question, ask in questions.items():
        print(f"{question} …", flush=True)
        lines = []
        try:
            for line in ask():
                lines.append(line)
        except Exception as error:  # whatever this Mac has that nobody foresaw
            lines.append(f"FAILED: {type(error).__name__}: {error}")
        parts.append("\n".join([f"== {question}", *lines]))
    return without("\n\n".join([*parts, LATER]), names) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="the largest that you have tells most")
    parser.add_argument("--sleep", action="store_true", help="you put the Mac to sleep while it answers, when asked to")
    parser.add_argument("--output", type=Path, default=Path("mac-check.txt"))
    options = parser.parse_args(arguments)
    if sys.platform != "darwin":
        print("tools/mac_check.py is for macOS: it asks what only a Mac can tell.", file=sys.stderr)
        return 2
    measured = Measured(options.model, memory_now)
    questions = {
        "Which Mac is it, with which software?": machine,
        "What does Metal give, and does it compute what the CPU does?": gpu,
        "Is the system what the sources of XNU say?": system,
        "What lies in the run folders?": lambda: run_folders(time.time()),
        "What does a model take, and when does it come back?": measured.memory,
        "How fast is it?": measured.speed,
        "Does a long prompt end on the GPU?": measured.long_prompt,
        "Does a stream go on when the manager is killed?": measured.killed_manager,
    }
    if options.sleep:
        questions["Does a stream survive sleep?"] = measured.sleep
    questions["What is left after the server's end?"] = measured.afterwards
    try:
        text = report(questions, names_of_this_machine())
    finally:
        measured.close()
    options.output.write_text(text)
    print(f"Written to {options.output}: please read it, add what it asks at its end, and send it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
