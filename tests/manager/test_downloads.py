"""Downloads that were asked for by HTTP: as many as may run at a time, and each ends for whoever follows it, whatever its process says."""

import asyncio
import socket
import sys

import psutil
import pytest

from src.errors import DownloadFailed, TooManyRequests
from src.manager import downloads as module
from src.manager.downloads import Downloads
from src.protocol import Download
from src.settings import Settings


@pytest.fixture
def silent_hub(monkeypatch):
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "*")
        yield


def order(name: str) -> Download:
    return Download(source="huggingface", repo="org/x", name=name, revision=None, include=[])


async def last(downloads: Downloads, name: str) -> str:
    return [step.stage async for step in downloads.follow(order(name))][-1]


async def begin(downloads: Downloads, name: str) -> None:
    async for _ in downloads.follow(order(name)):
        return


def test_only_so_many_run_at_a_time_and_each_of_them_is_told_of(tmp_path, monkeypatch, silent_hub):
    async def main() -> None:
        downloads = Downloads(Settings(models_dir=str(tmp_path)))
        for number in range(3):
            await begin(downloads, f"x{number}")
        assert [state.name for state in downloads.list()] == ["x0", "x1", "x2"]
        await begin(downloads, "x1")  # joins
        with pytest.raises(TooManyRequests, match="3 downloads run already"):
            await begin(downloads, "x3")
        await downloads.close()  # also while a process is just being started

    monkeypatch.setattr(module, "KEPT", 2)
    monkeypatch.setattr(module, "RUNNING", 3)
    asyncio.run(main())
    assert not psutil.Process().children()


def test_a_process_that_says_more_than_a_line_may_hold_has_failed_and_is_ended(tmp_path, monkeypatch):
    program = tmp_path / "program"
    program.write_text(f"#!{sys.executable}\nimport time\nprint('x' * 200_000, flush=True)\ntime.sleep(60)\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    async def main() -> None:
        downloads = Downloads(Settings(models_dir=str(tmp_path)))
        with pytest.raises(DownloadFailed):
            await asyncio.wait_for(last(downloads, "x"), 20)
        await downloads.close()

    asyncio.run(main())
    _, alive = psutil.wait_procs(psutil.Process().children(), 5)
    assert not alive
