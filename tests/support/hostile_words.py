"""Words that are paths, options, addresses, conditions or tricks of characters, for every field that names something to download."""

SOURCES = ("modelscope", "huggingface", "pypi")
FIELDS = ("repo", "name", "revision", "include")
WORDS = [
    *("..", "../x", "../../etc/passwd", "/etc/passwd", "a/../../x", "1/../../x", "./x", "~/x", "//x", "a\\b", "C:\\x"),
    *("-r", "-e", "-rwords.txt", "-r words.txt", "--index-url=http://evil.example/", "--requirement=/etc/passwd", "--help", "--"),
    *("git+https://evil.example/x.git", "git+ssh://git@evil.example/x", "https://evil.example/a-1-py3-none-any.whl", "file:///etc/passwd"),
    *("file:x", "a @ https://evil.example/a.whl", "a @ file:///tmp/x", "a@git+file:///tmp/x", "a[x] @ file:///tmp/x"),
    *("a; python_version > '3'", 'a ; extra == "x"', "a|b", "$(id)", "`id`", "$HOME", "a\n-r words.txt", "a\n", "\na", "a\r\nb", "a\tb"),
    *("a\0b", "\x1b[31ma", "a\x7f", "a\x85", "a\u2028b", "a\u202eb", "a\u200bb", "\ufeffa", "\ud800", "a\U000e0061", "x" * 5000),
]
VERSIONS = [
    "1+a.zip",
    "1+a/../x",
    "==1",
    ">=1",
    "===1/../x",
    "1.*",
    "1,2",
    "1 ; extra",
    " 1",
    "1 ",
    "1\n",
    "v",
    "main",
    "1!",
    "١",
    "9" * 101,
]
NAMES = [
    *("models.toml", "MODELS.TOML", "Models.Toml", "model\u017f.toml", "x.toml", "x.lock", "X.LOCK", "x.gguf", "adapter.safetensors"),
    *("chat.jinja", "x.part", "x.tmp", "models", "MODELS", "snapshots", "models--a--b", ".downloads", ".previous", ".source.json"),
    *("models.toml ", "models.toml.", "e\u0301", "\u212aelvin", "\uff0emodels", "日" * 67),
]
HOSTILE = [
    *((source, field, word) for source in SOURCES for field in FIELDS for word in WORDS),
    *(("pypi", "revision", word) for word in VERSIONS),
    *((source, "name", word) for source in SOURCES for word in NAMES),
    *((source, "repo", word) for source in SOURCES for word in ("", "a/b/c", "a/..", "a b", "ａ/b")),
]


def body(source: str, field: str, word: str) -> dict[str, object]:
    """A request that is right but for one word."""
    right: dict[str, object] = {"source": source, "repo": "tiny" if source == "pypi" else "org/tiny"}
    return {**right, field: [word] if field == "include" else word}
