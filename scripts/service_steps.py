"""The steps that make a folder a service of the machine, and those that take it back. Takes none of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

import service_files
from service_machine import Machine

LABELS = ("com.example.inference.limits", "com.example.inference")  # in the order of their start
JOBS = "/Library/LaunchDaemons"
UNIT = "inference@.service"
UNITS = "/etc/systemd/system"
CACHE_OF_LINUX = "/var/cache/inference"  # the unit's CacheDirectory
# macOS gives these to accounts of services.
ROLE_UIDS = range(450, 500)
SECRET_FILES = ("API_KEYS_FILE", "API_KEY_FILE", "RATE_LIMIT_STORAGE_FILE", "TLS_KEYFILE")
WITHOUT_LOGIN = ("/usr/sbin/nologin", "/sbin/nologin", "/usr/bin/false", "/bin/false")
# Of users, emptied, removable or virtual: a service cannot see them, or loses what lies there.
WRONG_PLACES = (
    *("/home", "/root", "/Users", "/var/root", "/private/var/root", "/tmp", "/var/tmp", "/private/tmp", "/private/var/tmp"),
    *("/var/folders", "/private/var/folders", "/Volumes", "/media", "/mnt", "/run", "/var/run", "/dev", "/proc", "/sys"),
)
RUN_BY_ROOT = ("scripts", "src", "deploy")  # with all they hold
RUN_BY_ROOT_TOO = ("run.py", "gunicorn.conf.py", "requirements.txt", ".venv", ".git")


class Site(NamedTuple):
    """Where the service is, and what .env says that counts here."""

    system: str  # linux, darwin
    folder: str
    settings: dict[str, str]

    @property
    def user(self) -> str:
        return "_inference" if self.system == "darwin" else "inference"

    @property
    def port(self) -> str:
        return self.settings.get("PORT", "8001")

    @property
    def host(self) -> str:
        host = self.settings.get("HOST", "127.0.0.1")
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)

    @property
    def url(self) -> str:
        scheme = "https" if "TLS_CERTFILE" in self.settings else "http"
        return f"{scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def folders(self) -> list[str]:
        """That the service writes to."""
        return [f"{self.folder}/{name}" for name in ("models", "logs", *(("cache", "run") if self.system == "darwin" else ()))]

    @property
    def instance(self) -> str:
        return f"inference@{self.port}"


class Step(NamedTuple):
    """A command; or a file, where there is text; or a wait, where there is neither: for `url`, or for the end of what `command` asks."""

    what: str
    command: tuple[str, ...] = ()
    also_right: tuple[int, ...] = ()  # statuses beside 0
    file: str = ""
    text: str = ""
    url: str = ""
    gone: bool = False
    remedy: str = ""

    def __str__(self) -> str:
        if self.file:
            return f"write {shlex.quote(self.file)}"
        if self.url:
            return f"wait until {self.url}/health answers 200"
        return f"{'wait until this fails: ' if self.gone else ''}{shlex.join(self.command)}"

    def take(self, machine: Machine, folder: str) -> None:
        """Raises Failed."""
        if self.file:
            machine.write(self.file, self.text)
        elif self.url:
            machine.wait_ready(self.url)
        elif self.gone:
            machine.wait_gone(*self.command)
        else:
            machine.run(self.command, folder, self.also_right)


def settings_of(env: str) -> dict[str, str]:
    """What stands in a .env, as far as it is written plainly: NAME=value, NAME="value"; empty ones are not set."""
    found = {}
    for name, value in re.findall(r"^[ \t]*(?:export[ \t]+)?(\w+)[ \t]*=[ \t]*(.*?)[ \t\r]*$", env, re.MULTILINE):
        quoted = re.fullmatch(r"'([^']*)'(?:\s+#.*)?|\"([^\"]*)\"(?:\s+#.*)?", value)
        plain = (quoted[1] or quoted[2] or "") if quoted else re.sub(r"(^|\s+)#.*", "", value)
        if plain:
            found[name] = plain
        else:
            found.pop(name, None)
    return found


def refusals(machine: Machine, site: Site, *, uninstall: bool = False) -> Iterator[str]:
    """Why this is not installed, or taken back, here."""
    if site.system not in ("linux", "darwin"):
        yield f"There are steps for Linux and macOS, and none for {site.system}: docs/DEPLOYMENT.md says what is needed."
        return
    if site.system == "linux" and not machine.look("/run/systemd/system"):
        yield "systemd does not run here: start the server with .venv/bin/python run.py --mode prod, by whatever starts services here."
    is_port = bool(re.fullmatch(r"[1-9][0-9]{0,4}", site.port)) and int(site.port) < 65536
    if not is_port:
        yield f"PORT={site.port!r} in .env must be a number from 1 to 65535."
    yield from _wrong_folder(site)
    yield from _open_to_others(machine, site)
    account = machine.account(site.user)
    if account and (account.uid == 0 or account.shell not in WITHOUT_LOGIN):
        yield (
            f"The account {site.user} is somebody's: it may log in with {account.shell}. Rename it, or install the service by hand: "
            "docs/DEPLOYMENT.md."
        )
    if not uninstall and is_port and machine.listens(site.host, int(site.port)) and not _runs(machine, site):
        yield f"Another program listens on port {site.port}: stop it, or set PORT in {site.folder}/.env."


def _wrong_folder(site: Site) -> Iterator[str]:
    folder = site.folder
    remedy = f"Clone it elsewhere: sudo git clone … {service_files.WRITTEN_FOR}"
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\"'\\$`:\ud800-\udfff]", folder) or folder != folder.strip():
        yield f"{folder!r} has characters that units, plists or virtual environments cannot name. {remedy}"
    above = [str(path) for path in (PurePosixPath(folder), *PurePosixPath(folder).parents)]
    if folder == "/" or not folder.startswith("/"):
        yield f"{folder!r} is no folder for a service. {remedy}"
    for place in WRONG_PLACES:
        if place in above:
            yield f"{folder} lies in {place}, which the service may not see or which is not kept. {remedy}"
    if site.system == "darwin" and len(f"{folder}/run") > 80:
        yield f"{folder} is too long a path for the server's sockets, which lie in it (80 characters with /run). {remedy}"


def _open_to_others(machine: Machine, site: Site) -> Iterator[str]:
    """Whatever root runs, root alone may change; what is given to the service's account must be what it seems."""
    remedy = f"Make it root's: sudo chown -R root {shlex.quote(site.folder)} && sudo chmod -R go-w {shlex.quote(site.folder)}"
    for path in (site.folder, *map(str, PurePosixPath(site.folder).parents), *_run_by_root(machine, site)):
        found = machine.look(path)
        if found and found.uid != 0:
            yield f"{path} belongs to another user (uid {found.uid}), who could change what root and the service run. {remedy}"
            return
        if found and found.mode & 0o022 and not found.is_link:
            yield f"{path} may be changed by other users (mode {found.mode & 0o777:04o}). {remedy}"
            return
    for path in (*site.folders, *(f"{site.folder}/{name}" for name in (".venv", "scripts", "src", "deploy")), *_secrets(machine, site)):
        found = machine.look(path)
        if found and found.is_link:
            yield f"{path} is a link: what it leads to is not given to another account. Put what it leads to in its place."


def _run_by_root(machine: Machine, site: Site) -> Iterator[str]:
    yield from (f"{site.folder}/{name}" for name in (*RUN_BY_ROOT_TOO, *RUN_BY_ROOT))
    for name in RUN_BY_ROOT:
        yield from machine.below(f"{site.folder}/{name}")


def _secrets(machine: Machine, site: Site) -> list[str]:
    """Files in the folder itself that the service alone may read, and has to."""
    named = [site.settings[name] for name in SECRET_FILES if name in site.settings]
    inside = [f"{site.folder}/{name}" for name in (".env", *named) if "/" not in name and name not in (".", "..")]
    return [path for path in dict.fromkeys(inside) if machine.look(path)]


def _runs(machine: Machine, site: Site) -> bool:
    if site.system == "darwin":
        return machine.succeeds("launchctl", "print", f"system/{LABELS[-1]}")
    return machine.answer("systemctl", "is-active", site.instance) in ("active", "activating", "reloading", "deactivating")


def install(machine: Machine, site: Site) -> list[Step]:
    # The packages come first: the likeliest to fail, and their log lies in a folder that is root's till then.
    before = [*_packages(machine), *_account(machine, site), *_folders(machine, site)]
    return [*before, *_check(site), *_model(machine, site), *_start(machine, site)]


def _account(machine: Machine, site: Site) -> Iterator[Step]:
    if machine.account(site.user):
        return
    what = f"the account {site.user}, without a login"
    if site.system == "linux":
        options = ("--system", "--user-group", "--no-create-home", "--home-dir", CACHE_OF_LINUX, "--shell", "/usr/sbin/nologin")
        yield Step(what, ("useradd", *options, site.user))
        return
    uid = machine.free_uid(ROLE_UIDS)
    options = ("-home", "/var/empty", "-shell", "/usr/bin/false", "-roleAccount", "-UID", str(uid or ROLE_UIDS[0]))
    yield Step(what, ("sysadminctl", "-addUser", site.user, *options))
    yield Step("see that it is there", ("id", "-u", site.user), remedy="sysadminctl says above why it made no account.")


def _folders(machine: Machine, site: Site) -> Iterator[Step]:
    owner = site.user if site.system == "darwin" else f"{site.user}:{site.user}"
    open_ones, private = site.folders[:2], site.folders[2:]
    yield Step("folders that the service writes to", ("mkdir", "-p", *site.folders))
    # What is in them too, where an earlier installation was taken back. Never where the account is there: it could have put a hard link
    # there to a file that is not its own.
    whole = () if machine.account(site.user) else ("-hR",)
    yield Step("which are its own", ("chown", *whole, owner, *site.folders))
    yield Step("and can be listed by others", ("chmod", "755", *open_ones))
    if private:
        yield Step("but for these", ("chmod", "700", *private))
    if secrets := _secrets(machine, site):
        yield Step("files with secrets, for the service alone", ("chown", owner, *secrets))
        yield Step("", ("chmod", "600", *secrets))


def _packages(machine: Machine) -> Iterator[Step]:
    # root's own HOME: macOS' sudo keeps that of who called it, where root's files would be in the way later.
    command = ("env", f"HOME={machine.root_home()}", "./scripts/install", "requirements.txt")
    yield Step("packages (.venv)", command, remedy="The output above says what is missing.")


def _as_service(site: Site) -> tuple[str, ...]:
    if site.system == "darwin":
        return ("sudo", "-u", site.user, "env", f"HOME={site.folder}/cache")
    return ("runuser", "-u", site.user, "--", "env", f"HOME={CACHE_OF_LINUX}")


def _check(site: Site) -> Iterator[Step]:
    yield Step(
        "see that the service's account can use them",
        (*_as_service(site), f"{site.folder}/.venv/bin/python", "-c", "import src.settings"),
        remedy=f"{site.user} must be able to read the folder and the Python of .venv, which must not lie in a user's home (pyenv, uv, "
        "Conda): remove .venv, and name another with PYTHON=/path/to/python3.",
    )


def _model(machine: Machine, site: Site) -> Iterator[Step]:
    if "MODELS_DIR" in site.settings:
        return  # the operator's own
    models = f"{site.folder}/models"
    if any(path.endswith((".gguf", ".safetensors")) for path in machine.below(models)):
        return
    program = (f"{site.folder}/.venv/bin/python", "scripts/fetch_builtin_model.py", "--models-dir", models)
    yield Step(
        "the built-in model, for there is none yet",
        (*_as_service(site), "PIP_NO_CACHE_DIR=1", *program),
        remedy=f"Or put a model of your own into {models}.",
    )


def _start(machine: Machine, site: Site) -> Iterator[Step]:
    ready = f"Look at {site.folder}/logs (errors.log, model_operations.log) and docs/TROUBLESHOOTING.md."
    if site.system == "linux":
        text = (machine.read(f"{site.folder}/deploy/systemd/{UNIT}") or b"").decode()
        yield Step("the unit", file=f"{UNITS}/{UNIT}", text=service_files.unit(text, site.folder))
        yield Step("which systemd reads", ("systemctl", "daemon-reload"))
        yield Step("start with the machine", ("systemctl", "enable", site.instance))
        yield Step("", ("systemctl", "reset-failed", site.instance), also_right=(1,))  # 1: it never failed
        remedy = f"systemctl status {site.instance} and journalctl -u {site.instance} say why."
        yield Step("and now", ("systemctl", "restart", site.instance), remedy=remedy)
    else:
        for label in LABELS:
            text = (machine.read(f"{site.folder}/deploy/launchd/{label}.plist") or b"").decode()
            place = f"{JOBS}/{label}.plist"
            text = service_files.limits(text, machine.read(place)) if label == LABELS[0] else service_files.plist(text, site.folder)
            yield Step("the job", file=place, text=text)
        for label in LABELS:
            yield from _stop_job(machine, label)
            yield Step("start with the machine", ("launchctl", "enable", f"system/{label}"))
            yield Step("and now", ("launchctl", "bootstrap", "system", f"{JOBS}/{label}.plist"))
        ready = f"launchctl print system/{LABELS[-1]} and {site.folder}/logs/launchd.log say why; so does docs/TROUBLESHOOTING.md."
    yield Step("wait until a model can be asked", url=site.url, remedy=ready)


def _stop_job(machine: Machine, label: str) -> Iterator[Step]:
    if machine.succeeds("launchctl", "print", f"system/{label}"):
        # 36: it goes on to stop; 3: it was gone by then.
        yield Step("stop it: running requests end first", ("launchctl", "bootout", f"system/{label}"), also_right=(3, 36))
        yield Step("", ("launchctl", "print", f"system/{label}"), gone=True)


def uninstall(machine: Machine, site: Site) -> list[Step]:
    steps = [*(_away_from_launchd(machine) if site.system == "darwin" else _away_from_systemd(machine))]
    root = "root:wheel" if site.system == "darwin" else "root:root"
    # Kept, and no longer of an account whose number the next one may get.
    kept = [path for path in (*site.folders[:2], *_secrets(machine, site)) if machine.look(path)]
    if kept:
        steps.append(Step("what is kept becomes root's", ("chown", "-hR", root, *kept)))
    caches = site.folders[2:] if site.system == "darwin" else [CACHE_OF_LINUX]
    if caches := [path for path in caches if machine.look(path)]:
        steps.append(Step("caches", ("rm", "-rf", *caches)))
    if machine.account(site.user):
        command = ("dscl", ".", "-delete", f"/Users/{site.user}") if site.system == "darwin" else ("userdel", site.user)
        steps.append(Step(f"the account {site.user}", command))
    return steps


def _away_from_systemd(machine: Machine) -> Iterator[Step]:
    if machine.look(f"{UNITS}/{UNIT}"):
        yield Step("stop all instances: running requests end first", ("systemctl", "stop", "inference@*.service"))
        yield Step("start none with the machine", ("systemctl", "disable", UNIT))
        yield Step("the unit", ("rm", "-f", f"{UNITS}/{UNIT}"))
        yield Step("", ("systemctl", "daemon-reload"))
        yield Step("", ("systemctl", "reset-failed", "inference@*.service"), also_right=(1,))


def _away_from_launchd(machine: Machine) -> Iterator[Step]:
    for label in reversed(LABELS):
        yield from _stop_job(machine, label)
        if machine.look(f"{JOBS}/{label}.plist"):
            yield Step("the job", ("rm", "-f", f"{JOBS}/{label}.plist"))
