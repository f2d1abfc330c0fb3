"""Every command in the documents is run, by a test that is named before it or here; or it says why it cannot be."""

import os
import re
import subprocess
import sys

import pytest

from src.settings import ROOT
from tests.support.failures import failures
from tests.support.programs import OPTIONAL, program
from tests.support.server import Server

# The Chinese README has the same commands as the README: tests/test_documents.py.
DOCUMENTS = sorted({"README.md", "SECURITY.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))} - {"docs/README.zh-CN.md"})
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>sh|bash|python)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = [
    pytest.param(found, id=f"{document}:{(ROOT / document).read_text()[: found.start('code')].count(chr(10)) + 1}")
    for document in DOCUMENTS
    for found in BLOCK.finditer((ROOT / document).read_text())
]
RUN = [block for block in BLOCKS if block.values[0]["mark"] == "run"]


def test_a_comment_further_up_is_no_blocks_mark():
    found = BLOCK.search("<!-- settings -->\n| a |\n<!-- b -->\n\n```sh\nx\n```\n")
    assert (found["mark"], found["code"]) == (None, "x\n")


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
    needed = [name for name in OPTIONAL if re.search(rf"^\s*{name} ", code, re.MULTILINE)]
    folders = {os.path.dirname(program(name)) for name in needed}
    environ = {**os.environ, "PATH": os.pathsep.join([os.environ["PATH"], *folders])}
    done = subprocess.run([*interpreter, code], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
    assert '"error"' not in done.stdout


def test_every_error_code_has_a_cause_and_a_remedy():
    page = (ROOT / "docs/TROUBLESHOOTING.md").read_text()
    for kind in failures():
        assert f"`{kind.code}`" in page, kind.code
