"""Holds any OpenAI-compatible server against the contract that this one keeps: what failed, and a table of its features.

    python scripts/verify.py http://127.0.0.1:8080 [--model NAME] [--json FILE]
    python scripts/verify.py http://127.0.0.1:8080 --only tools     # names of cases that match, in pytest's words for it

Runs tests/conformance, which needs pytest and httpx (requirements-dev.txt), and exits with 1 where a case failed, with 2 where the
server cannot be asked. The cases send a few thousand small requests, and some large or wrong ones: not for a server that others use.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
from conformance_table import Column, aligned, table

ROOT = Path(__file__).resolve().parent.parent
SUITE = "tests/conformance"


def main() -> int:
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # subprocess ends pytest then too
    if problem := _unfit(arguments.url, arguments.api_key):
        print(problem, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        path = Path(arguments.json or Path(folder) / "results.json").absolute()
        status = _run(arguments, path)
        if not path.exists():
            return status
        column: dict[str, Column] = json.loads(path.read_text())
    print("\n" + aligned(table(column)))
    return status


def _unfit(url: str, key: str) -> str | None:
    """Why nothing can be found out about this server."""
    try:
        answer = httpx.get(f"{url.rstrip('/')}/v1/models", headers={"Authorization": f"Bearer {key}"}, timeout=60)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"{url} cannot be reached: {error}"
    return None if answer.is_success else f"GET {url}/v1/models is answered with {answer.status_code}: {answer.text[:200]}"


def _run(arguments: argparse.Namespace, results: Path) -> int:
    command = [sys.executable, "-m", "pytest", SUITE, "--confcutdir", SUITE, "-p", "no:cacheprovider", "-q", "--tb=no", "-rN"]
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
