"""Programs of the system that tests run. A test skips where its program is missing, or fails where REQUIRE_PROGRAMS is set.

`python -m tests.support.programs COMMAND...` runs a command that finds none of them on its PATH.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest


class Package(NamedTuple):
    need: str  # build, test or slow
    debian: str
    brew: str  # "-": Homebrew has none


PACKAGES = {
    name: Package(*rest)
    for name, *rest in (line.split() for line in Path(__file__).with_suffix(".txt").read_text().splitlines() if line[:1] != "#")
}
OPTIONAL = [name for name, package in PACKAGES.items() if package.need != "build"]


def program(name: str) -> str:
    """Its path, also where it lies in the sbin beside a bin of the PATH, as administrators' programs do. Skips the test without it."""
    folders = os.environ["PATH"].split(os.pathsep)
    beside = [str(Path(folder).with_name("sbin")) for folder in folders if Path(folder).name == "bin"]
    if found := shutil.which(name, path=os.pathsep.join(folders + beside)):
        return found
    reason = f"{name} is not installed ({remedy([name])})"
    if os.environ.get("REQUIRE_PROGRAMS"):
        pytest.fail(reason)
    pytest.skip(reason)


def remedy(names: Iterable[str]) -> str:
    """The command that installs programs on a system such as this one, or that they are not for it."""
    packages = [PACKAGES[name] for name in names]
    if sys.platform != "darwin":
        return f"Debian, Ubuntu: apt-get install {' '.join(sorted({package.debian for package in packages}))}"
    brewed = " ".join(sorted({package.brew for package in packages} - {"-"}))
    return f"macOS: brew install {brewed}" if brewed else "what it tests is not for macOS"


def summary(reasons: Iterable[str]) -> str:
    """One line on the tests that were skipped for want of a program, by the reasons of all that were skipped; "" without such."""
    found = [match[1] for reason in reasons if (match := re.search(r"Skipped: (\S+) is not installed", reason))]
    missing = {name: count for name, count in Counter(found).most_common() if name in PACKAGES}
    if not missing:
        return ""
    counts = ", ".join(f"{name} ({count})" for name, count in missing.items())
    return f"Tests skipped because a program is not installed: {sum(missing.values())}, of {counts}. To run them: {remedy(missing)}"


def run_without(command: list[str], names: Collection[str] = OPTIONAL, environ: Mapping[str, str] | None = None) -> int:
    """Run a command with a PATH on which all is there but these programs, and with these variables. Returns its exit status."""
    with tempfile.TemporaryDirectory(prefix="path-") as folder:
        for directory in map(Path, os.environ["PATH"].split(os.pathsep)):
            for path in directory.iterdir() if directory.is_dir() else ():
                if path.name not in names and not (link := Path(folder, path.name)).is_symlink():
                    link.symlink_to(path)
        own = {name: value for name, value in os.environ.items() if name != "REQUIRE_PROGRAMS"}
        return subprocess.run(command, env={**own, **(environ or {}), "PATH": folder}).returncode


if __name__ == "__main__":
    sys.exit(run_without(sys.argv[1:]))
