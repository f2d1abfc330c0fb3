"""A port that somebody has is told with who that is, also where the system tells less, or lets two programs listen there."""

import os
import socket
import sys
from collections.abc import Iterator

import psutil
import pytest

from src.errors import SettingsError
from src.gunicorn.checks import check_port_free

pytestmark = pytest.mark.macos


@pytest.fixture(params=["127.0.0.1", "0.0.0.0"])
def listener(request) -> Iterator[socket.socket]:
    with socket.socket() as one:
        one.bind((request.param, 0))
        one.listen()
        yield one


@pytest.fixture
def lsof(tmp_path, monkeypatch):
    """As on macOS, which tells psutil nothing, and lsof of the user's own processes."""

    def says(text: str) -> None:
        program = tmp_path / "lsof"
        program.write_text(f"#!/bin/sh\necho \"$@\" >{tmp_path}/asked\nprintf '{text}'\n")
        program.chmod(0o755)

    def refuse(kind: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", refuse)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    says.asked = tmp_path / "asked"
    return says


def test_lsof_knows_who_listens_where_the_system_tells_only_root(lsof, listener):
    lsof(f"p{os.getpid()}\\nf3\\n")
    port = listener.getsockname()[1]
    with pytest.raises(SettingsError, match=rf"port {port} on 127\.0\.0\.1 is in use by .* \(process {os.getpid()}: "):
        check_port_free("127.0.0.1", port)
    assert lsof.asked.read_text().split() == ["-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fp"]


@pytest.mark.parametrize("text", ["", "p\\n", "plenty\\n", f"p{2**22 + 1}\\n"])
def test_where_nobody_tells_the_port_is_in_use_all_the_same(lsof, listener, text):
    lsof(text)
    port = listener.getsockname()[1]
    with pytest.raises(SettingsError, match=r"is in use\. Stop that process, or set PORT to another port"):
        check_port_free("127.0.0.1", port)


def test_without_lsof_too(lsof, listener, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match=r"is in use\. Stop"):
        check_port_free("127.0.0.1", listener.getsockname()[1])


class Lenient(socket.socket):
    """As on macOS: an address of this machine is free where another program listens on all of them, and the other way round."""

    def bind(self, address: tuple[str, int]) -> None:
        pass


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_on_a_mac_a_port_where_somebody_answers_is_not_free(listener, monkeypatch, host):
    monkeypatch.setattr(socket, "socket", Lenient)
    port = listener.getsockname()[1]
    check_port_free(host, port)
    psutil.Process()
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SettingsError, match=rf"port {port} on {host} is in use"):
        check_port_free(host, port)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])
def test_on_a_mac_a_port_where_nobody_does_is_free(monkeypatch, host):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr(socket, "socket", Lenient)
    monkeypatch.setattr(sys, "platform", "darwin")
    check_port_free(host, port)
