"""Dockerfile and compose file: linted, their words checked against the service, what an image holds is enough to serve.

Nothing is built: that takes a Docker engine.
"""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from src.settings import ROOT, Settings
from tests.support.programs import program
from tests.support.server import free_port, wait_until

pytestmark = pytest.mark.slow

DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
STAGES = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]


def stage(name: str) -> str:
    [found] = [text for text in STAGES if re.match(rf"\S+ AS {name}$", text.splitlines()[0])]
    return found


def copied(text: str) -> list[tuple[list[str], str]]:
    """(sources, target) of each COPY from the folder."""
    lines = re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)
    return [(line.split()[:-1], line.split()[-1]) for line in lines]


def test_the_dockerfile_has_no_fault_that_hadolint_knows():
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_is_there_and_not_ignored():
    allowed = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    for text in STAGES:
        for sources, _ in copied(text):
            for source in sources:
                assert list(ROOT.glob(source)), f"{source} does not exist"
                assert any(fnmatch.fnmatch(source.split("/")[0], pattern) for pattern in allowed), f"{source} is ignored"


def test_both_images_are_the_same_but_for_where_they_come_from():
    lines = [
        [line for line in stage(name).strip().splitlines()[1:] if not line.startswith(("RUN apt", "# hadolint", "COPY --from", "#"))]
        for name in ("cpu", "cuda")
    ]
    assert lines[0] == lines[1]


def test_what_an_image_holds_is_enough_to_serve(tmp_path):
    for sources, target in copied(stage("cpu")):
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, tmp_path / target)
    for folder in ("models", "logs", "cache"):
        (tmp_path / folder).mkdir()
    [command] = re.findall(r"^CMD \[(.*)\]$", stage("cpu"), re.MULTILINE)
    words = [word.strip().strip('"') for word in command.split(",")]
    assert words[0] == ".venv/bin/python"
    port = free_port()
    environ = {**os.environ, "PORT": str(port), "INFERENCE_ENGINE": "echo", "HOST": "127.0.0.1"}
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *words[1:]], cwd=tmp_path, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        [check] = re.findall(r'CMD \[".venv/bin/python", "-c", "(.*)"\]$', stage("cpu"), re.MULTILINE)

        def healthy() -> bool:
            assert process.poll() is None, (tmp_path / "output").read_text()
            return subprocess.run([sys.executable, "-c", check], env=environ, capture_output=True).returncode == 0

        wait_until(healthy, what="the image's own health check")
        body = {"model": "echo", "prompt": "from a copy"}
        assert httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=body).json()["choices"][0]["text"] == "from a copy"
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_the_compose_file_is_valid_and_asks_for_a_key():
    command = [program("docker-compose"), "--file", ROOT / "compose.yaml", "--profile", "cpu", "--profile", "cuda", "config"]
    environ = {**os.environ, "API_KEY": "x"}
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert {service["build"]["target"] for service in services.values()} == {"cpu", "cuda"}
    assert all(stage(service["build"]["target"]) for service in services.values())
    del environ["API_KEY"]
    assert "set API_KEY" in subprocess.run(command, capture_output=True, text=True, env=environ).stderr


def test_compose_waits_for_the_stop_and_mounts_what_the_service_writes():
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["x-inference"]
    assert int(service["stop_grace_period"].rstrip("s")) > Settings().shutdown_grace_seconds + 15
    inside = {volume.split(":")[1] for volume in service["volumes"]}
    assert inside == {f"/opt/inference/{folder}" for folder in ("models", "logs", "cache")}
    assert service["ports"] == ["127.0.0.1:${PORT:-8001}:8001"]
