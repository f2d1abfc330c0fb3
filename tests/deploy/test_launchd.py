"""The jobs for launchd: well-formed, and installed by the steps of docs/DEPLOYMENT.md."""

import plistlib

import pytest

from src.settings import ROOT
from tests.test_documents import steps

PLISTS = sorted((ROOT / "deploy/launchd").iterdir())


@pytest.mark.parametrize("path", PLISTS, ids=lambda path: path.stem)
def test_each_job_has_its_files_name_and_is_loaded_by_the_steps(path):
    assert path.suffix == ".plist"
    assert plistlib.loads(path.read_bytes())["Label"] == path.stem
    assert f"launchctl bootstrap system /Library/LaunchDaemons/{path.name}\n" in steps("Mac Studio")


def test_the_limits_are_there_before_the_server_listens():
    commands = steps("Mac Studio")
    assert commands.index("inference.limits.plist\n") < commands.index("inference.plist\n")
    limits = plistlib.loads((ROOT / "deploy/launchd/com.example.inference.limits.plist").read_bytes())
    program, *settings = limits["ProgramArguments"]
    assert (program, settings) == ("/usr/sbin/sysctl", ["kern.ipc.somaxconn=2048"])
    assert "UserName" not in limits, "it takes root"
