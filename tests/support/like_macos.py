"""Runs a command on a Mac made of Linux: `python -m tests.support.like_macos COMMAND...`

A long path to the folder for temporary files, with a link in it; none of the programs that a Mac lacks; and mac/sitecustomize.py in
every Python process.
"""

import os
import sys
import tempfile
from pathlib import Path

from tests.support.programs import PACKAGES, run_without

# Those of tests that a Mac has not by itself, and what GNU and Linux have beside POSIX.
OWN = {"curl", "cc", "c++", "python3"}
OF_LINUX = ["flock", "free", "getent", "ip", "ldd", "nproc", "numfmt", "pidof", "setsid", "ss", "strace", "systemctl", "tac", "timeout"]
MISSING = [*(PACKAGES.keys() - OWN), *OF_LINUX]
# As long as a Mac's, /var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T, or a little longer.
PLACE = "folders/zz/n000000000000000000"


def run_like_macos(command: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="mac-", dir="/tmp") as folder:
        Path(folder, "private/var", PLACE, "T").mkdir(parents=True)
        Path(folder, "var").symlink_to("private/var")
        paths = [str(Path(__file__).with_name("mac")), *filter(None, [os.environ.get("PYTHONPATH")])]
        environ = {"TMPDIR": f"{folder}/var/{PLACE}/T", "PYTHONPATH": os.pathsep.join(paths), "LIKE_MACOS": "1"}
        return run_without(command, MISSING, environ)


if __name__ == "__main__":
    sys.exit(run_like_macos(sys.argv[1:]))
