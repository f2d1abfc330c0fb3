"""Every way a user starts the service serves the same thing, and what cannot start says why in one line."""

import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from src.settings import ROOT
from tests.support.certificate import make_certificate
from tests.support.server import PLAIN_GUNICORN, Server, assert_gone, free_port, wait_until

pytestmark = pytest.mark.slow


def ask(server: Server, text: str = "hello") -> str:
    answer = server.client().chat.completions.create(model="echo", messages=[{"role": "user", "content": text}])
    return answer.choices[0].message.content


@pytest.mark.parametrize("command", ["run.py --mode prod", "run.py --mode dev", "-m src.api.app", PLAIN_GUNICORN])
def test_every_way_to_start_serves_the_same(command):
    with Server(command=command, INFERENCE_ENGINE="echo") as server:
        assert ask(server) == "user: hello\n"
        wait_until(lambda: "Ready: http://127.0.0.1" in server.output, what="the banner")
        assert f"curl http://127.0.0.1:{server.port}/v1/chat/completions" in server.output
        assert server.stop() == 0


def test_the_curl_line_of_the_banner_works_as_it_stands():
    with Server(INFERENCE_ENGINE="echo") as server:
        line = wait_until(
            lambda: next((line for line in server.output.splitlines() if line.startswith("Try:")), None), what="the curl line of the banner"
        )
        answer = subprocess.run(line.removeprefix("Try:").strip() + " -s", shell=True, capture_output=True, text=True, check=True).stdout
        assert "capital of Japan" in answer
        assert '"finish_reason":"stop"' in answer


def test_development_mode_reloads_code_and_keeps_the_model_and_the_running_stream():
    with Server(command="run.py --mode dev", INFERENCE_ENGINE="echo", ECHO_STEP_MS=20) as server:
        runner, gateway = server.pids("runner"), server.pids("gateway")
        stream = server.client().chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "x"}], stream=True, max_tokens=200, extra_body={"ignore_eos": True}
        )
        next(stream)
        source = ROOT / "src" / "api" / "routes" / "system.py"
        os.utime(source)
        wait_until(lambda: set(server.pids("gateway")) - set(gateway), what="a new gateway worker")
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert len(text) == 200
        wait_until(lambda: not set(server.pids("gateway")) & set(gateway), what="the end of the old gateway worker")
        assert server.pids("runner") == runner
        assert ask(server) == "user: hello\n"


def test_a_port_in_use_is_told_in_one_line_that_names_port_and_process():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        environ = {**os.environ, "PORT": str(port), "INFERENCE_ENGINE": "echo"}
        done = subprocess.run([sys.executable, "run.py"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if "[INFO]" not in line]
    assert len(told) == 1
    assert f"port {port} on 127.0.0.1 is in use" in told[0]
    assert f"process {os.getpid()}" in told[0]


def test_a_wrong_setting_stops_every_way_to_start_with_one_line():
    for command in ("run.py", "-m src.api.app", PLAIN_GUNICORN):
        environ = {**os.environ, "WORKERS": "many", "LOG_DIR": "/nowhere"}
        words = command.format(port=free_port()).split()
        done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=30)
        assert done.returncode == 2, command
        assert done.stderr.count("\n") == 1, done.stderr
        assert "WORKERS='many' is wrong: expected a valid integer" in done.stderr


ELSEWHERE = PLAIN_GUNICORN.replace("127.0.0.1", "0.0.0.0")


def refusal(command: str, **environ: object) -> str:
    """The one line of a start that is refused."""
    environ = {"PORT": free_port(), "INFERENCE_ENGINE": "echo", "LOG_DIR": "/nowhere", **environ}
    words = command.format(port=environ["PORT"]).split()
    environ = {**os.environ, **{name: str(value) for name, value in environ.items()}}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "[INFO]" not in line]
    return line


@pytest.mark.parametrize(
    ("command", "host"),
    [("run.py", "0.0.0.0"), ("run.py", "::"), ("-m src.api.app", "0.0.0.0"), (ELSEWHERE, ""), (PLAIN_GUNICORN + " --bind 0.0.0.0:0", "")],
)
def test_without_keys_no_way_to_start_listens_where_other_machines_reach_it(command, host):
    line = refusal(command, HOST=host)
    assert "can be reached by other machines, and there are no API keys. Set API_KEYS_FILE" in line
    assert "ALLOW_UNAUTHENTICATED=true" in line


@pytest.mark.parametrize("setting", [{"API_KEY": "k", "key": "k"}, {"ALLOW_UNAUTHENTICATED": "true"}])
@pytest.mark.parametrize("command", ["run.py", ELSEWHERE])
def test_with_keys_or_with_leave_it_does(command, setting):
    with Server(command=command, HOST="0.0.0.0", INFERENCE_ENGINE="echo", **setting) as server:
        assert server.client().models.list().data[0].id == "echo"


def test_a_socket_that_was_handed_over_is_looked_at_too():
    """As systemd does it: Gunicorn then listens there, whatever HOST says."""
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        environ = {**os.environ, "INFERENCE_ENGINE": "echo", "LOG_DIR": "/nowhere", "PORT": str(free_port()), "LISTEN_FDS": "1"}
        # The process has to be the one that LISTEN_PID names, and the socket its file 3.
        script = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid())"
        script += "; os.execv(sys.executable, [sys.executable, 'run.py'])"
        words = [sys.executable, "-c", script, str(listener.fileno())]
        done = subprocess.run(words, cwd=ROOT, env=environ, pass_fds=[listener.fileno()], capture_output=True, text=True, timeout=60)
        port = listener.getsockname()[1]
    assert done.returncode == 2, done.stderr
    assert f"0.0.0.0:{port} can be reached by other machines" in done.stderr


def test_a_wrong_file_of_keys_or_secret_stops_the_start_with_one_line(tmp_path):
    path = tmp_path / "file"
    assert "Make a first key: scripts/manage_keys.py add NAME" in refusal("run.py", API_KEYS_FILE=path)
    path.write_text("secret")
    path.chmod(0o644)
    for setting in ("API_KEYS_FILE", "API_KEY_FILE", "RATE_LIMIT_STORAGE_FILE"):
        line = refusal("run.py", **{setting: path})
        assert f"{setting}=" in line
        assert "others may use it (mode 0644). Run: chmod 600" in line
    path.chmod(0o600)
    assert "API_KEYS_FILE=" in refusal(PLAIN_GUNICORN, API_KEYS_FILE=path)
    assert "expected it to hold an address" in refusal("run.py", RATE_LIMIT_STORAGE_FILE=path)
    assert "secret" not in refusal("run.py", RATE_LIMIT_STORAGE="redis//:secret@x")


def test_a_certificate_that_cannot_serve_stops_the_start_with_one_line(tmp_path):
    certificate, key = make_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    other, _ = make_certificate(tmp_path / "other")
    assert "TLS_CERTFILE is set and TLS_KEYFILE is not" in refusal("run.py", TLS_CERTFILE=certificate)
    assert "are no certificate with its private key" in refusal("run.py", TLS_CERTFILE=other, TLS_KEYFILE=key)
    assert "are no certificate with its private key" in refusal("run.py", TLS_CERTFILE=tmp_path / "none", TLS_KEYFILE=key)
    key.chmod(0o644)
    assert "others may use it" in refusal("run.py", TLS_CERTFILE=certificate, TLS_KEYFILE=key)


def test_ctrl_c_leaves_nothing_behind():
    with Server(INFERENCE_ENGINE="echo") as server:
        tree = server.processes()
        assert len(tree) == 5 + (sys.platform == "darwin"), "master, worker, manager, runner, what renders its templates; caffeinate"
        os.killpg(server.process.pid, signal.SIGINT)  # as a terminal sends it: to the whole foreground group
        assert server.process.wait(15) == 0
        assert_gone(tree)
        assert "Traceback" not in server.output


def test_a_master_killed_leaves_nothing_behind():
    with Server(INFERENCE_ENGINE="echo") as server:
        tree = server.processes()
        server.process.kill()
        server.process.wait()
        assert_gone(tree)


def test_two_servers_run_side_by_side():
    with Server(INFERENCE_ENGINE="echo") as one, Server(INFERENCE_ENGINE="echo") as other:
        assert ask(one, "one") == "user: one\n"
        assert ask(other, "other") == "user: other\n"


def test_several_workers_share_one_model():
    with Server(INFERENCE_ENGINE="echo", WORKERS=2) as server:
        wait_until(lambda: len(server.pids("gateway")) == 2, what="two gateway workers")
        assert len(server.pids("runner")) == 1
        began = time.monotonic()
        assert {httpx.get(f"{server.url}/health").status_code for _ in range(20)} == {200}
        assert time.monotonic() - began < 10


def test_a_manager_killed_is_started_again_and_its_model_comes_back():
    with Server(INFERENCE_ENGINE="echo") as server:
        manager, runner, gateway = server.pids("manager"), server.pids("runner"), server.pids("gateway")
        os.kill(manager[0], signal.SIGKILL)
        wait_until(lambda: "crashed; restarting" in server.output, what="the master's notice")
        server.wait_healthy()
        assert ask(server) == "user: hello\n"
        assert server.pids("gateway") == gateway
        assert not set(server.pids("manager") + server.pids("runner")) & set(manager + runner)
