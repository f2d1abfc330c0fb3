"""Holds any OpenAI-compatible server against the contract that this one keeps, and prints a table of its features.

    python scripts/verify.py http://127.0.0.1:8080 [--model NAME] [--json FILE]
    python scripts/verify.py http://127.0.0.1:8080 --only tools     # names of cases that match, in pytest's words for it

Runs tests/conformance, which needs pytest and httpx (requirements-dev.txt), and exits with 1 where a case failed. The cases send
a few thousand small requests, and some large or wrong ones: not for a server that others use.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from conformance_table import Column, table

ROOT = Path(__file__).resolve().parent.parent
SUITE = "tests/conformance"


def main() -> int:
    arguments = _parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(arguments.json or Path(folder) / "results.json").absolute()
        status = _run(arguments, path)
        if not path.exists():
            return status
        column: dict[str, Column] = json.loads(path.read_text())
    print(table(column))
    return status


def _run(arguments: argparse.Namespace, results: Path) -> int:
    command = [sys.executable, "-m", "pytest", SUITE, "--confcutdir", SUITE, "-p", "no:cacheprovider", "-q", "--tb=line"]
    command += ["--url", arguments.url.rstrip("/"), "--results", str(results), "--api-key", arguments.api_key]
    command += ["--name", arguments.name or arguments.url]
    if arguments.model:
        command += ["--model", arguments.model]
    if arguments.only:
        command += ["-k", arguments.only]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False).returncode


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", help="without /v1")
    parser.add_argument("--model", help="default: the first of GET /v1/models")
    parser.add_argument("--api-key", default="none")
    parser.add_argument("--name", help="of the server in the table; default: its URL")
    parser.add_argument("--only", help="an expression for pytest -k")
    parser.add_argument("--json", type=Path, help="where the outcome of every case is written")
    return parser


if __name__ == "__main__":
    sys.exit(main())
