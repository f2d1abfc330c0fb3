"""Every command in the documents is run, by a test that is named before it or here; or it says why it cannot be."""

import os
import re
import subprocess
import sys

import pytest

from src.settings import ROOT
from tests.programs import program
from tests.server import Server

DOCUMENTS = ("README.md", "docs/DEPLOYMENT.md", "docs/TROUBLESHOOTING.md", "docs/ARCHITECTURE.md")
BLOCK = re.compile(r"(?:<!-- (?P<mark>.*?) -->\n)?```(?P<language>sh|bash|python)\n(?P<code>.*?)```", re.DOTALL)
BLOCKS = [
    pytest.param(found, id=f"{document}:{(ROOT / document).read_text()[: found.start('code')].count(chr(10)) + 1}")
    for document in DOCUMENTS
    for found in BLOCK.finditer((ROOT / document).read_text())
]
RUN = [block for block in BLOCKS if block.values[0]["mark"] == "run"]


@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_says_who_runs_it_or_why_nobody_can(block):
    mark = block["mark"] or ""
    if runners := re.match(r"run by ([^:]*)", mark):
        for path in runners[1].split(", "):
            assert (ROOT / path).is_file(), path
    else:
        assert mark == "run" or re.match(r"not run here: \S", mark), "there is no mark before this block"


@pytest.fixture(scope="module")
def server():
    with Server(CONTEXT_LENGTH=128, MAX_PARALLEL_SEQUENCES=2, wait=False, disposable=True) as running:
        running.wait_healthy(100)
        yield running


@pytest.mark.parametrize("block", RUN)
def test_a_block_that_is_run_here_works_as_it_stands(block, server):
    code = block["code"].replace("8001", str(server.port)).replace(" logs/", f" {server.folder}/logs/")
    interpreter = [sys.executable, "-c"] if block["language"] == "python" else ["bash", "-euo", "pipefail", "-c"]
    folders = {os.path.dirname(program(name)) for name in ("promtool",)}
    environ = {**os.environ, "PATH": os.pathsep.join([os.environ["PATH"], *folders])}
    done = subprocess.run([*interpreter, code], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
    assert '"error"' not in done.stdout


MESSAGES = re.findall(r"^\| `([^`]*)`[^|]* \|", (ROOT / "docs/TROUBLESHOOTING.md").read_text(), re.MULTILINE)
SOURCES = "\n".join(
    path.read_text() for path in (*(ROOT / "src").rglob("*.py"), ROOT / "scripts/install", ROOT / "deploy/nginx/inference.conf")
)


@pytest.mark.parametrize("message", [message for message in MESSAGES if " " in message])
def test_a_message_in_the_troubleshooting_page_is_one_that_the_program_has(message):
    # Where a message is put together from lines of source, or from names, its parts are looked for.
    for part in re.split(r"…|=…", message):
        if len(words := part.strip(" (")) > 3:
            assert words in SOURCES, words


def test_every_error_code_has_a_cause_and_a_remedy():
    from src.errors import ServiceError
    from tests.test_documents import all_subclasses

    page = (ROOT / "docs/TROUBLESHOOTING.md").read_text()
    for kind in all_subclasses(ServiceError):
        assert f"`{kind.code}`" in page, kind.code
