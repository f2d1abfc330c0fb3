"""What the installation of the service asks of the machine, and what it has the machine do. Knows no steps."""

from __future__ import annotations

import http.client
import os
import pwd
import socket
import ssl
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

NOBODY_LISTENS_SECONDS = 120  # that a start may take till something listens
LOADING_SECONDS = 1800  # that a model may take to load


class Account(NamedTuple):
    uid: int
    shell: str


class Found(NamedTuple):
    """Of one file or folder; a link is not followed."""

    uid: int
    mode: int

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


class Failed(Exception):
    """A step that did not work: what happened."""


class Machine:
    system = "darwin" if sys.platform == "darwin" else sys.platform

    def is_root(self) -> bool:
        return os.geteuid() == 0

    def root_home(self) -> str:
        return pwd.getpwuid(0).pw_dir

    def account(self, name: str) -> Account | None:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            return None
        return Account(found.pw_uid, found.pw_shell)

    def free_uid(self, among: range) -> int | None:
        taken = {each.pw_uid for each in pwd.getpwall()}
        return next((uid for uid in among if uid not in taken), None)

    def read(self, path: str) -> bytes | None:
        try:
            return Path(path).read_bytes()
        except OSError:
            return None

    def look(self, path: str) -> Found | None:
        try:
            found = os.lstat(path)
        except OSError:
            return None
        return Found(found.st_uid, found.st_mode)

    def below(self, folder: str) -> list[str]:
        """All files and folders in it, links as such."""
        return [os.path.join(above, name) for above, folders, files in os.walk(folder) for name in (*folders, *files)]

    def succeeds(self, *command: str) -> bool:
        """Asks, and changes nothing."""
        try:
            return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0
        except OSError:
            return False

    def answer(self, *command: str) -> str:
        try:
            return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout.strip()
        except OSError:
            return ""

    def run(self, command: tuple[str, ...], folder: str, also_right: tuple[int, ...] = ()) -> None:
        """Raises Failed."""
        try:
            status = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, check=False).returncode
        except OSError as error:
            raise Failed(f"{command[0]}: {error.strerror}") from error
        if status and status not in also_right:
            raise Failed(f"{command[0]} ended with status {status}")

    def write(self, path: str, text: str) -> None:
        """In one step, readable by all. What is there and differs is kept beside it. Raises Failed."""
        place = Path(path)
        part = place.with_name(f".{place.name}.{os.getpid()}.part")
        try:
            if place.exists() and place.read_text() != text:
                kept = place.with_name(f"{place.name}.before-{time.strftime('%Y%m%d-%H%M%S')}")
                kept.write_bytes(place.read_bytes())
                print(f"kept what was there: {kept}")
            part.write_text(text)
            part.chmod(0o644)
            part.replace(place)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise Failed(f"cannot write {path}: {error.strerror}") from error

    def listens(self, host: str, port: int) -> bool:
        try:
            socket.create_connection((host, port), timeout=2).close()
        except OSError:
            return False
        return True

    def wait_ready(self, url: str) -> None:
        """Till a model can be asked at `url`. Raises Failed with the server's reason."""
        began = time.monotonic()
        reason, told = "nothing listens there", ""
        while (waited := time.monotonic() - began) < LOADING_SECONDS:
            answer = health(url)
            if answer is None and waited > NOBODY_LISTENS_SECONDS:
                break
            if answer is not None:
                status, reason = answer
                if status == 200:
                    return
            if reason != told and answer is not None:
                told = reason
                print(f"waiting: {reason}", flush=True)
            time.sleep(1)
        raise Failed(f"no model can be asked at {url}: {reason}")

    def wait_gone(self, *command: str) -> None:
        """Till `command`, which asks for a job, fails. Raises Failed."""
        give_up = time.monotonic() + 90  # longer than the plist's ExitTimeOut
        while self.succeeds(*command):
            if time.monotonic() > give_up:
                raise Failed("the server does not stop")
            time.sleep(0.5)


def health(url: str) -> tuple[int, str] | None:
    """Status and text of the answer; None where there is none."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE  # this machine's own server; nothing secret is sent
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusting))
    try:
        with opener.open(f"{url}/health", timeout=10) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, error.read(300).decode(errors="replace").strip()
    except (OSError, ValueError, http.client.HTTPException):
        return None
