"""What a report says of the settings, the errors, the running server and the last tests. Free text passes report_words."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from report_words import LEFT_OUT, Words

ERRORS = 20  # records
TAIL = 512 * 1024  # bytes of the log
# Settings in text that are shown: of all others it is said that they are set.
SHOWN = ("models_dir", "default_model", "log_dir", "run_dir", "quantization", "kv_cache_dtype", "host")
# Texts of the server's status that are names and kinds, and no sentences.
PLAIN = (
    *("name", "model", "id", "state", "stage", "engine", "engine_version", "device", "format", "quantisation", "architecture", "object"),
    *("default_model", "python", "flask", "gunicorn", "gevent", "platform", "key_type", "value_type", "keys", "values"),
)
# And words of the server's own that no phrase is.
FIXED = (
    *("available", "f16", "q8_0", "q8_0_values", "chat_template", "tools", "thinking", "embeddings", "mean_embeddings"),
    *("master", "gateway", "manager", "runner", "reading_weights", "warming_up"),
)
_RECORD = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.+-]{8,20}Z?) ([A-Z]{4,8}) (\w{1,20})\[(\d{1,9})\] (.*)")


def settings(root: Path, environ: Mapping[str, str]) -> tuple[list[str], Any]:
    """The settings that are not as they are by themselves, and the Settings; None where they cannot be read."""
    try:
        from src.errors import SettingsError
        from src.settings import Settings
    except (ImportError, SyntaxError, TypeError) as error:  # not installed, or a Python older than src takes
        return [f"cannot be read: {type(error).__name__} (is .venv complete? ./scripts/install requirements.txt)"], None
    try:
        found = Settings.load(root / ".env", environ)
    except OSError as error:
        return [f"cannot be read: {type(error).__name__} (run this as the server's user)"], None
    except (SettingsError, UnicodeError) as error:
        [name] = re.findall(r"^([A-Z_]+)\b", str(error)) or [""]
        return [f"are wrong: {name if name.lower() in Settings.model_fields else type(error).__name__}"], None
    lines = []
    for name, field in Settings.model_fields.items():
        value = getattr(found, name)
        if value != field.default:
            lines.append(f"{name.upper()}{f'={value}' if _may_be_shown(name, value, field.annotation) else ' is set'}")
    return lines or ["all as they are by themselves"], found


def _may_be_shown(name: str, value: object, kind: object) -> bool:
    if not isinstance(value, str) or kind is not str:  # numbers, and words of a list
        return True
    if name == "host":
        try:
            ipaddress.ip_address(value)
        except ValueError:
            return False
    return name in SHOWN and len(value) < 200 and value.isprintable()


def errors(folder: Path, words: Words) -> list[str]:
    """The last records of the newest errors.log."""
    found = []
    for path in [folder / "errors.log", *_each_below(folder)]:
        try:
            found.append((path.stat().st_mtime, path))
        except OSError:
            continue
    if not found:
        try:
            os.listdir(folder)
        except PermissionError:
            return ["may not be read by this user: run this as the server's user, or with sudo"]
        except OSError:
            return ["no logs"]
        return ["none, or none that this user may read"]
    path = max(found)[1]
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return [f"cannot be read: {type(error).__name__}"]
    return records(text, words)[-ERRORS:] or ["none"]


def _each_below(folder: Path) -> list[Path]:
    """Of instances that have a folder each."""
    try:
        return [folder / name / "errors.log" for name in os.listdir(folder) if name.isdigit()]
    except OSError:
        return []


def records(text: str, words: Words) -> list[str]:
    """Each as one text, a line a frame of its traceback."""
    found: list[str] = []
    for line in text.splitlines():
        if record := _RECORD.fullmatch(line):
            when, level, process, _, message = record.groups()
            found.append(f"{when} {level} {process}: {words.keep(message)}")
        elif line.startswith("{"):
            found += _of_json(line, words)
        elif found:
            found[-1] += _traceback([line], words)
    return found


def _of_json(line: str, words: Words) -> list[str]:
    try:
        record = json.loads(line)
        head = f"{record['time']} {record['level']} {record['process']}[{record['pid']}] -"
        message, exception = str(record.get("message", "")), str(record.get("exception", ""))
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    if not (found := _RECORD.fullmatch(head)):
        return []
    return [f"{found[1]} {found[2]} {found[3]}: {words.keep(message)}{_traceback(exception.splitlines(), words)}"]


def _traceback(lines: list[str], words: Words) -> str:
    kept = ""
    for line in lines:
        said = words.frame(line) or ("" if line.startswith(" " * 5) else words.exception(line))
        if said and said != LEFT_OUT:
            kept += f"\n    {said}"
    return kept


def status(found: Any, words: Words) -> tuple[list[str], str]:
    """What the running server answers, and the token that it was asked with."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(found.host, found.host)
    address = f"{'https' if found.tls_certfile else 'http'}://{f'[{host}]' if ':' in host else host}:{found.port}/v1/system/status"
    token = _token(found)
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token or 'none'}"})
    try:
        files = found.tls_files()
        trusting = ssl.create_default_context(cafile=str(files[0]) if files else None)
        trusting.check_hostname = False  # our own certificate, whatever name it is for
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusting), _Stay())
        with opener.open(request, timeout=20) as answer:
            lines = json.dumps(shape(json.loads(answer.read(4 * 2**20)), words), indent=1, ensure_ascii=False).splitlines()
    except urllib.error.HTTPError as error:
        hint = ": set API_KEY to a key, or run this as the server's user" if error.code in (401, 403) else ""
        lines = [f"is answered with {error.code}{hint}"]
    except (OSError, ValueError, RecursionError) as error:
        lines = [f"no server answers on port {found.port} ({type(error).__name__})"]
    return lines, token


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Nowhere: the token is for this address."""


def _token(found: Any) -> str:
    """The key that is set, or the operator's token; "" where this user has neither."""
    from src import operator_token
    from src.errors import SettingsError
    from src.settings import ROOT

    try:
        if key := found.read_api_key():
            return str(key)
        return operator_token.find(str(ROOT / found.run_dir) if found.run_dir else "", found.port).read_text().strip()
    except (SettingsError, OSError, UnicodeError):
        return ""


def shape(value: Any, words: Words, key: str = "") -> Any:
    """The same object, with what may be reported of its texts."""
    if isinstance(value, dict):
        return {
            name if re.fullmatch(r"[a-z][a-z0-9_]{0,40}", str(name)) else LEFT_OUT: shape(each, words, str(name))
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [shape(each, words, key) for each in value[:100]]
    if isinstance(value, str):
        if value in FIXED:
            return value
        return value if key in PLAIN and re.fullmatch(r"[\w .:@+-]{0,120}", value) else words.keep(value)
    return value if value is None or isinstance(value, (int, float)) else LEFT_OUT


def tests(root: Path) -> list[str]:
    """Which failed last, as pytest keeps it. Names of tests that are there, without their parameters."""
    path = root / ".pytest_cache" / "v" / "cache" / "lastfailed"
    try:
        failed = [*json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return ["none kept"]
    names = set()
    for each in failed:
        found = re.fullmatch(r"(tests/[\w/]+\.py)(?:::(\w+))?(?:\[.*)?", str(each), re.DOTALL)
        file = root / found[1] if found else None
        if found and file and file.is_file() and re.search(rf"\bdef {found[2] or ''}\b", file.read_text(encoding="utf-8")):
            names.add("::".join(filter(None, found.groups())))
    return [f"{len(failed) or 'none'} failed when they were run last", *sorted(names)]
