"""What a client reads of an error names files, and not where they lie."""

import pytest

from src.errors import DownloadFailed, InvalidValue, ModelLoadFailed
from src.public_text import without_paths


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot open '/mnt/My Models/a b.gguf': no", "cannot open 'a b.gguf': no"),
        ("[Errno 2] No such file: '/root/x/y.json'", "[Errno 2] No such file: 'y.json'"),
        ("failed to load /srv/models/x.gguf: bad", "failed to load x.gguf: bad"),
        ("/mnt/My Models/x.gguf is broken", "x.gguf is broken"),
        ("/srv/models/ is empty", "models is empty"),
        ("There is no model in /srv/models/.", "There is no model in models."),
        ("path=/etc/passwd, (/tmp/x) [/a/b] {/c/d}", "path=passwd, (x) [b] {d}"),
        ("/a/b.gguf;/c/d.gguf:/e/f", "b.gguf;d.gguf:f"),
        ('File "/usr/lib/python3.11/x.py", line 3', 'File "x.py", line 3'),
        ("not in /models", "not in models"),
        ("`/a/b c/d`", "`d`"),
        ('[Errno 2] No such file: "/Volumes/Ada\'s disk/x.gguf"', '[Errno 2] No such file: "x.gguf"'),
        ("/Volumes/Ada's disk/x.gguf is broken", "x.gguf is broken"),
        ("cannot open '/mnt/My Models/a.gg", "cannot open 'a.gg"),
        ("cannot fetch file:///mnt/models/a.gguf: no", "cannot fetch a.gguf: no"),
    ],
)
def test_of_an_absolute_path_the_last_name_is_left(text, expected):
    assert without_paths(text) == expected


@pytest.mark.parametrize(
    "text",
    ["see https://host/a/b, http://x/y", "and/or 5 tokens/s a/b ./c/d ../e ~/x", "use /v1/completions", "a / b", "/", "", "'/v1/models'"],
)
def test_what_is_no_path_of_this_machine_stays(text):
    assert without_paths(text) == text


def test_the_servers_own_failures_name_no_folder_and_what_a_client_sent_comes_back_as_it_is():
    assert ModelLoadFailed("cannot read /a/b").body()["error"]["message"] == "cannot read b"
    assert DownloadFailed("cannot write '/a/b'").body()["error"]["message"] == "cannot write 'b'"
    assert InvalidValue("There is no /a/b").body()["error"]["message"] == "There is no /a/b"
    assert str(ModelLoadFailed("cannot read /a/b")) == "cannot read /a/b"
