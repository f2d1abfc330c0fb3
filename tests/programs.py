"""Programs of the system that tests run. One that is missing fails the test with how to install it: a skip would hide it."""

import os
import shutil

PACKAGES = {
    "docker-compose": "docker-compose",
    "nginx": "nginx-light",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "systemd-analyze": "systemd",
}


def program(name: str) -> str:
    """Its path, also where the administrators' programs are not on the user's PATH."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    assert found, f"{name} is not installed (Debian, Ubuntu: apt-get install {PACKAGES[name]})"
    return found
