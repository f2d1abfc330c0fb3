"""scripts/install-service: its steps as recorded, what it refuses, and what it says where a step fails. No step is taken here."""

import configparser
import os
import plistlib
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import service_files
import service_install
from service_machine import Account, Failed, Found, Machine, health

from src.settings import ROOT
from tests.support.programs import program
from tests.support.server import free_port

RECORDED = Path(__file__).parent / "install_service"
STRANGE = "/srv/R&D <b> 100% (new); a--b"


class Fake(Machine):
    """A machine that takes notes. Files of the installation are those of this folder, and root's."""

    def __init__(self, system: str = "linux", folder: str = "/opt/inference", *, root: bool = True) -> None:
        self.system, self.folder, self.root = system, folder, root
        self.files: dict[str, bytes] = {}  # beside the folder's own
        self.owned: dict[str, Found] = {"/run/systemd/system": Found(0, stat.S_IFDIR | 0o755)}
        self.accounts: dict[str, Account] = {}
        self.in_use = self.runs = False
        self.models: list[str] = []
        self.done: list[str] = []
        self.fails_at = ""

    def is_root(self) -> bool:
        return self.root

    def root_home(self) -> str:
        return "/var/root" if self.system == "darwin" else "/root"

    def account(self, name: str) -> Account | None:
        return self.accounts.get(name)

    def free_uid(self, among: range) -> int | None:
        return among[1]

    def read(self, path: str) -> bytes | None:
        if path in self.files or not path.startswith(f"{self.folder}/deploy/"):
            return self.files.get(path)
        return (ROOT / path.removeprefix(f"{self.folder}/")).read_bytes()

    def look(self, path: str) -> Found | None:
        if path in self.owned:
            return self.owned[path]
        if path.startswith(self.folder) or self.folder.startswith(path):
            name = path.removeprefix(f"{self.folder}/")
            there = path in self.files or name in ("models", "logs", "run.py", "scripts") or self.folder.startswith(path)
            return Found(0, stat.S_IFDIR | 0o755) if there else None
        return Found(0, stat.S_IFREG | 0o644) if path in self.files else None

    def below(self, folder: str) -> list[str]:
        return self.models if folder.endswith("/models") else [f"{folder}/a file"]

    def succeeds(self, *command: str) -> bool:
        return self.runs

    def answer(self, *command: str) -> str:
        return "activating" if self.runs else "inactive"

    def listens(self, host: str, port: int) -> bool:
        return self.in_use

    def run(self, command: tuple[str, ...], folder: str, also_right: tuple[int, ...] = ()) -> None:
        if self.fails_at and self.fails_at in command:
            raise Failed(f"{command[0]} ended with status 1")
        self.done.append(" ".join(command))

    def write(self, path: str, text: str) -> None:
        self.done.append(f"write {path}")

    def wait_ready(self, url: str) -> None:
        self.done.append(f"ready {url}")

    def wait_gone(self, *command: str) -> None:
        self.done.append(f"gone {' '.join(command)}")


def asked(machine: Fake, *words: str) -> int:
    return service_install.main([*words], machine, machine.folder)


def before(system: str) -> Fake:
    """A machine with a clone and nothing else."""
    return Fake(system)


def after(system: str) -> Fake:
    """The same when the service runs there, with secrets and a model of the operator's."""
    machine = Fake(system)
    user = "_inference" if system == "darwin" else "inference"
    machine.accounts[user] = Account(450, "/usr/bin/false")
    machine.files["/opt/inference/.env"] = b"PORT=9000\nAPI_KEYS_FILE=keys.json\n"
    machine.files["/opt/inference/keys.json"] = b"{}"
    machine.models = ["/opt/inference/models/mine/weights.gguf"]
    machine.in_use = machine.runs = True
    for path in ("/etc/systemd/system/inference@.service", *(f"/Library/LaunchDaemons/{plist.name}" for plist in PLISTS)):
        machine.files[path] = b""
    for path in ("/var/cache/inference", "/opt/inference/cache", "/opt/inference/run"):
        machine.owned[path] = Found(450, stat.S_IFDIR | 0o700)
    return machine


PLISTS = sorted((ROOT / "deploy/launchd").iterdir())


@pytest.mark.parametrize("system", ["linux", "darwin"])
@pytest.mark.parametrize(
    ("name", "machine", "words"), [("first", before, []), ("update", after, []), ("uninstall", after, ["--uninstall"])]
)
def test_the_steps_are_those_that_were_recorded(system, name, machine, words, capsys):
    """After a change that is meant: RECORD=1 pytest, and read the difference."""
    fake = machine(system)
    assert asked(fake, "--dry-run", *words) == 0
    recorded, shown = RECORDED / f"{system}-{name}.txt", capsys.readouterr().out
    if os.environ.get("RECORD"):
        recorded.write_text(shown)
    assert shown == recorded.read_text()
    assert fake.done == []


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_what_a_dry_run_shows_is_what_is_done(system, capsys):
    fake = before(system)
    assert asked(fake) == 0
    assert "Ready: http://127.0.0.1:8001/v1" in capsys.readouterr().out
    did = list(fake.done)
    assert asked(fake, "--dry-run") == 0
    shown = [line for line in capsys.readouterr().out.splitlines()[1:] if not line.startswith("#")]
    assert len(shown) == len(did)
    assert [line.split()[0] for line in shown if "until" not in line] == [line.split()[0] for line in did if not line.startswith("ready")]


@pytest.mark.parametrize("folder", ["/opt/inference", "/srv/my models/the server", STRANGE])
def test_files_of_another_folder_name_that_folder_and_are_right(folder, tmp_path, monkeypatch):
    unit = service_files.unit((ROOT / "deploy/systemd/inference@.service").read_text(), folder)
    here = folder.replace("%", "%%")
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str
    parser.read_string(unit)
    service = parser["Service"]
    assert service["WorkingDirectory"] == here
    quotes = '"' if folder != "/opt/inference" else ""
    assert service["ExecStart"] == f"{quotes}{here}/.venv/bin/python{quotes} run.py --mode prod"
    assert service["ReadWritePaths"] == f"{quotes}{here}/models{quotes} {quotes}{here}/logs{quotes}"
    assert f"Environment={quotes}LOG_DIR={here}/logs/%i{quotes}\n" in unit
    job = plistlib.loads(service_files.plist(PLISTS[1].read_text(), folder).encode())
    assert job["ProgramArguments"][0] == f"{folder}/.venv/bin/python"
    assert (job["WorkingDirectory"], job["EnvironmentVariables"]["RUN_DIR"]) == (folder, f"{folder}/run")
    if folder == "/opt/inference":  # as they are in deploy/
        assert unit == (ROOT / "deploy/systemd/inference@.service").read_text()
        assert service_files.plist(PLISTS[1].read_text(), folder) == PLISTS[1].read_text()


@pytest.mark.slow
def test_systemd_finds_no_fault_in_a_unit_with_quotes(tmp_path):
    folder = tmp_path / "R&D <b> 100% (new); a--b"
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/python").symlink_to(sys.executable)
    (folder / "docs").mkdir()
    unit = tmp_path / "inference@.service"
    unit.write_text(service_files.unit((ROOT / "deploy/systemd/inference@.service").read_text(), str(folder)))
    done = subprocess.run([program("systemd-analyze"), "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_wired_limit_that_the_operator_has_added_outlasts_an_update():
    text = PLISTS[0].read_text()
    assert service_files.limits(text, None) == text
    added = text.replace("\t</array>", "\t\t<string>iogpu.wired_limit_mb=114688</string>\n\t\t<string>kern.evil=1</string>\n\t</array>")
    kept = plistlib.loads(service_files.limits(text, added.encode()).encode())["ProgramArguments"]
    assert kept == ["/usr/sbin/sysctl", "kern.ipc.somaxconn=2048", "iogpu.wired_limit_mb=114688"]
    for nonsense in (b"", b"{}", b"<plist><array/></plist>", b"\xff"):
        assert service_files.limits(text, nonsense) == text


def test_without_root_it_says_so_and_does_nothing(capsys):
    fake = Fake(root=False)
    assert (asked(fake), asked(fake, "--uninstall")) == (2, 2)
    assert "this takes root. Run: sudo ./scripts/install-service\n" in capsys.readouterr().err
    assert fake.done == []
    assert asked(fake, "--dry-run") == 0


def with_folder(folder: str, system: str = "linux") -> Fake:
    return Fake(system, folder)


def with_owner(path: str, uid: int, mode: int) -> Fake:
    fake = Fake()
    fake.owned[path] = Found(uid, mode)
    return fake


def with_account(uid: int, shell: str) -> Fake:
    fake = Fake()
    fake.accounts["inference"] = Account(uid, shell)
    return fake


def with_env(text: str) -> Fake:
    fake = Fake()
    fake.files["/opt/inference/.env"] = text.encode()
    return fake


def with_port_in_use() -> Fake:
    fake = Fake()
    fake.in_use = True
    return fake


def without_systemd() -> Fake:
    fake = Fake()
    del fake.owned["/run/systemd/system"]
    fake.owned["/run/systemd/system"] = None  # type: ignore[assignment]
    return fake


FILE, FOLDER, LINK = stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (with_folder("/opt/a\nUser=root"), "cannot name"),
        (with_folder('/opt/a"b'), "cannot name"),
        (with_folder("/opt/$HOME"), "cannot name"),
        (with_folder("/opt/a:b"), "cannot name"),
        (with_folder("/opt/a "), "cannot name"),
        (with_folder("/"), "is no folder for a service"),
        (with_folder("/home/alice/inference"), "lies in /home"),
        (with_folder("/Users/alice/inference", "darwin"), "lies in /Users"),
        (with_folder("/private/tmp/inference", "darwin"), "lies in /private/tmp"),
        (with_folder(f"/opt/{'a' * 80}", "darwin"), "too long"),
        (with_owner("/opt/inference", 501, FOLDER | 0o755), "belongs to another user"),
        (with_owner("/opt", 0, FOLDER | 0o777), "may be changed by other users"),
        (with_owner("/opt/inference/run.py", 0, FILE | 0o664), "may be changed by other users"),
        (with_owner("/opt/inference/scripts/a file", 501, FILE | 0o644), "belongs to another user"),
        (with_owner("/opt/inference/models", 0, LINK | 0o777), "is a link"),
        (with_owner("/opt/inference/.venv", 0, LINK | 0o777), "is a link"),
        (with_account(0, "/usr/sbin/nologin"), "is somebody's"),
        (with_account(999, "/bin/bash"), "is somebody's"),
        (with_env("PORT=80; rm -rf /"), "must be a number"),
        (with_env("PORT=70000"), "must be a number"),
        (with_env("PORT=8٠٠١"), "must be a number"),
        (with_port_in_use(), "Another program listens on port 8001"),
        (without_systemd(), "systemd does not run here"),
        (Fake("freebsd"), "none for freebsd"),
    ],
)
def test_what_is_dangerous_or_cannot_work_is_refused_before_the_first_step(machine, reason, capsys):
    assert asked(machine) == 1
    assert machine.done == []
    assert reason in capsys.readouterr().err
    assert asked(machine, "--dry-run") == 1, "a dry run says so too"


def test_what_the_service_has_been_given_may_be_its_own_when_it_is_updated():
    fake = after("linux")
    for path in (".env", ".env.before", "keys.json", "models", "logs"):
        fake.owned[f"/opt/inference/{path}"] = Found(999, (FILE if "." in path else FOLDER) | 0o600)
    assert asked(fake) == 0


def test_folders_are_given_with_what_is_in_them_only_while_there_is_no_account_that_could_have_put_a_link_there():
    for machine, recursive in ((before("linux"), True), (after("linux"), False), (before("darwin"), True), (after("darwin"), False)):
        assert asked(machine) == 0
        [gives] = [command for command in machine.done if command.startswith("chown") and "/models" in command]
        assert (" -hR " in gives) == recursive


def test_no_model_is_fetched_where_the_operator_has_named_a_folder_of_models():
    for env, fetched in (("", True), ("MODELS_DIR=/srv/models", False)):
        fake = with_env(env)
        assert asked(fake) == 0
        assert any("fetch_builtin_model.py" in command for command in fake.done) == fetched


def test_a_secret_that_is_a_link_is_given_to_nobody(capsys):
    fake = after("linux")
    fake.owned["/opt/inference/.env"] = Found(0, LINK | 0o777)
    assert asked(fake) == 1
    assert "/opt/inference/.env is a link" in capsys.readouterr().err


def test_a_failure_says_what_was_done_and_how_to_go_on(capsys):
    fake = before("linux")
    fake.fails_at = "restart"
    assert asked(fake) == 1
    said = capsys.readouterr().err
    assert "systemctl ended with status 1, in: systemctl restart inference@8001\nsystemctl status inference@8001 and journalctl" in said
    assert "Done before it:\n  env HOME=/root ./scripts/install requirements.txt\n  useradd --system" in said
    assert said.index("  write /etc/systemd/system/inference@.service\n") < said.index("To go on, when the cause is gone: sudo ./scripts/")
    assert "To take it back instead: sudo ./scripts/install-service --uninstall\n" in said
    assert not any("ready" in step for step in fake.done)


def test_an_interruption_is_such_a_failure(capsys, monkeypatch):
    fake = before("darwin")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fake, "wait_ready", interrupted)
    assert asked(fake) == 1
    assert "interrupted, in: wait until http://127.0.0.1:8001/health answers 200\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("env", "port", "url"),
    [
        ("", "8001", "http://127.0.0.1:8001"),
        ("export PORT = 9000 # mine\r\nHOST='0.0.0.0'", "9000", "http://127.0.0.1:9000"),
        ('PORT="9000"\nHOST="::"\nTLS_CERTFILE=a.pem\n', "9000", "https://[::1]:9000"),
        ("PORT=9000\nPORT=\n#PORT=1\n", "8001", "http://127.0.0.1:8001"),
    ],
)
def test_env_says_where_the_server_listens(env, port, url):
    site = service_install.Site("linux", "/opt/inference", service_install.service_steps.settings_of(env))
    assert (site.port, site.url) == (port, url)


def test_a_file_is_written_whole_and_what_was_there_is_kept(tmp_path, capsys):
    place = tmp_path / "a b.plist"
    machine = Machine()
    umask = os.umask(0o077)
    try:
        machine.write(str(place), "one")
        machine.write(str(place), "one")
    finally:
        os.umask(umask)
    assert place.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["a b.plist"]
    machine.write(str(place), "two")
    [kept] = tmp_path.glob("a b.plist.before-*")
    assert (place.read_text(), kept.read_text()) == ("two", "one")
    with pytest.raises(Failed, match="cannot write"):
        machine.write(str(tmp_path / "none" / "x"), "one")


def test_a_command_that_fails_or_is_not_there_is_a_failure(tmp_path):
    machine = Machine()
    machine.run(("sh", "-c", "exit 3"), str(tmp_path), also_right=(3,))
    with pytest.raises(Failed, match="sh ended with status 3"):
        machine.run(("sh", "-c", "exit 3"), str(tmp_path))
    with pytest.raises(Failed, match="no-such-program: No such file"):
        machine.run(("no-such-program",), str(tmp_path))


def test_where_nobody_answers_there_is_no_health():
    assert health(f"http://127.0.0.1:{free_port()}") is None


def test_the_command_itself_shows_the_steps_for_this_machine():
    done = subprocess.run([ROOT / "scripts/install-service", "--dry-run"], capture_output=True, text=True, cwd="/", timeout=60)
    assert done.stdout.startswith(f"cd {ROOT}\n# packages (.venv)\n")
    assert done.stdout.endswith("wait until http://127.0.0.1:8001/health answers 200\n") or (ROOT / ".env").exists()
