#!/usr/bin/env python3
"""Makes, lists, revokes and renews API keys in the file that API_KEYS_FILE names. A running server follows within a second.

    scripts/manage_keys.py add alice
    scripts/manage_keys.py add ops --scope admin --expires 90d
    scripts/manage_keys.py add guest --model smollm2-135m --requests-per-minute 60 --tokens-per-minute 20000 --concurrent 2
    scripts/manage_keys.py list
    scripts/manage_keys.py rotate alice
    scripts/manage_keys.py revoke guest

A key is shown once, when it is made: the file holds only its salted hash.
"""

import argparse
import os
import re
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src import logs, process_limits
from src.errors import ServiceError, SettingsError
from src.keys import SCOPES, Key, KeyFile
from src.settings import Settings

DAY = 86_400


def main() -> int:
    process_limits.keep_new_files_private()
    arguments = _parser().parse_args()
    try:
        settings = Settings.load()
        if not (arguments.file or settings.api_keys_file):
            raise SettingsError("API_KEYS_FILE is not set: put API_KEYS_FILE=keys.json into .env, or name a file with --file")
        file = KeyFile(arguments.file or settings.keys_path)
        if arguments.act == "list":
            _list(file.read())
            return 0
        print(_change(file, arguments))
    except (ServiceError, SettingsError, OSError) as error:
        print(f"manage_keys.py: {error}", file=sys.stderr)
        return 1
    _log(settings, arguments)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, help="the file of keys (default: API_KEYS_FILE)")
    acts = parser.add_subparsers(dest="act", required=True, metavar="add|list|revoke|rotate")
    add = acts.add_parser("add", help="make a key, and show it this once")
    add.add_argument("name", help="whose it is: it stands in the logs")
    add.add_argument("--scope", action="append", choices=SCOPES, dest="scopes", help="what it may do (default: inference); may be repeated")
    add.add_argument("--model", action="append", dest="models", help="a model it may see and ask (default: all); may be repeated")
    add.add_argument("--expires", type=_moment, metavar="90d|2027-12-31", help="days from now, or the first day (UTC) it is void on")
    for limit in ("requests-per-minute", "tokens-per-minute", "concurrent"):
        add.add_argument(f"--{limit}", type=int, metavar="N", help="instead of the server's own limit; 0: no limit")
    acts.add_parser("list", help="show what there is, but no key")
    acts.add_parser("revoke", help="make a key void").add_argument("name")
    acts.add_parser("rotate", help="a new key under the old name; the old one is void").add_argument("name")
    return parser


def _change(file: KeyFile, arguments: argparse.Namespace) -> str:
    """What was done, with the key where one was made. Raises ServiceError, SettingsError, OSError."""
    if arguments.act == "revoke":
        file.revoke(arguments.name)
        return f"{arguments.name} is revoked."
    if arguments.act == "rotate":
        secret, _ = file.rotate(arguments.name)
    else:
        names = ("scopes", "models", "expires", "requests_per_minute", "tokens_per_minute", "concurrent")
        what = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
        secret, _ = file.add(arguments.name, **what)
    return f"{secret}\nThis is the key of {arguments.name}. It is not shown again."


def _list(keys: list[Key]) -> None:
    for key in keys:
        facts = [f"scopes={','.join(key.scopes)}", f"created={_day(key.created)}"]
        if key.expires is not None:
            facts.append(f"expired={_day(key.expires)}" if key.expired(time.time()) else f"expires={_day(key.expires)}")
        if key.models:
            facts.append(f"models={','.join(key.models)}")
        limits = {name: getattr(key, name) for name in ("requests_per_minute", "tokens_per_minute", "concurrent")}
        facts += [f"{name}={limit}" for name, limit in limits.items() if limit is not None]
        print(f"{key.name:<20} {' '.join(facts)}")


def _moment(text: str) -> int:
    """Unix seconds."""
    if days := re.fullmatch(r"(\d{1,5})d", text):
        return int(time.time()) + int(days[1]) * DAY
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=timezone.utc).timestamp())
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected days, like 90d, or a date, like 2027-12-31, and got {text!r}") from None


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d")


def _log(settings: Settings, arguments: argparse.Namespace) -> None:
    """To audit.log, as the server does for its routes; but not where that would make a file the server cannot write to."""
    folder = settings.log_path
    if settings.enable_log_file and folder.is_dir() and folder.stat().st_uid == os.geteuid():
        logs.configure(settings, "manage_keys")
        logs.write(logs.audit, act=f"{arguments.act} key", by=f"uid {os.getuid()}", name=arguments.name)


if __name__ == "__main__":
    sys.exit(main())
