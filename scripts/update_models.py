#!/usr/bin/env python3
"""Checks every downloaded model against its source, shows what would change, and with --yes takes it over.

A new version is downloaded beside the old one and loaded once before it takes its place; the old one is kept for --rollback.
A server that runs here and has the model loaded is asked to put the new version in its place; where it needs a key, API_KEY is it.
"""

import argparse
import json
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.download.errors import DownloadError
from src.download.reason import keep_log
from src.download.store import Store
from src.download.update import Change, find_change, roll_back, update
from src.errors import ServiceError
from src.manager.load_check import check_load
from src.settings import Settings


def main() -> int:
    settings = Settings.load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="models to look at (default: all that were downloaded)")
    parser.add_argument("--yes", action="store_true", help="take the changes over")
    parser.add_argument("--rollback", action="store_true", help="put the version before the last update back; needs the models' names")
    parser.add_argument(
        "--models-dir", type=Path, default=settings.models_path, help=f"the models folder (default: {settings.models_path})"
    )
    arguments = parser.parse_args()
    keep_log(settings.log_path, settings.log_retention_days, settings.log_max_bytes)
    store = Store(arguments.models_dir)
    downloaded = store.downloaded()
    if unknown := [name for name in arguments.names if name not in downloaded]:
        print(
            f"update_models.py: {', '.join(unknown)}: not downloaded by download_model.py, so where it came from is not known.",
            file=sys.stderr,
        )
        return 1
    if arguments.rollback and not arguments.names:
        parser.error("--rollback needs the names of the models to put back")
    if not downloaded:
        print(f"No model in {arguments.models_dir} was downloaded by download_model.py, so there is nothing to update.")
    failed = False
    for name in arguments.names or downloaded:
        try:
            if arguments.rollback:
                roll_back(store, name)
                print(f"{name}: put back to {store.downloaded()[name].listing.commit[:12]}")
                reload_in_server(settings, name)
            elif change := find_change(name, downloaded[name]):
                take_over(store, change, settings, arguments.yes)
            else:
                print(f"{name}: up to date ({downloaded[name].listing.commit[:12]})")
        except DownloadError as error:
            failed = True
            print(f"{name}: {error}.", file=sys.stderr)
    return 1 if failed else 0


def take_over(store: Store, change: Change, settings: Settings, yes: bool) -> None:
    name = change.reference.name
    print(change)
    if not yes:
        print(f"{name}: run again with --yes to take this over")
        return
    update(store, change, lambda folder: see_that_loads(folder, settings))
    print(f"{name}: updated; the version before is kept for --rollback")
    reload_in_server(settings, name)


def see_that_loads(folder: Path, settings: Settings) -> None:
    """Raises DownloadError."""
    try:
        if reason := check_load(folder, settings):
            print(f"{folder.name}: taken over without a trial: {reason}")
    except ServiceError as error:
        raise DownloadError(f"the new version does not load, so the old one stays: {error.message.rstrip('.')}") from error


def reload_in_server(settings: Settings, name: str) -> None:
    """Only where one runs here and has the model loaded. Its failure is told, not ours: the files are in their place."""
    scheme, host = "https" if settings.tls_certfile else "http", settings.host if settings.host not in ("0.0.0.0", "::") else "127.0.0.1"
    address = f"{scheme}://{host}:{settings.port}/v1/models"
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {settings.read_api_key() or 'none'}"}
    tls = _trusting(settings)
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=5, context=tls) as answer:
            states = {model["id"]: model["state"] for model in json.load(answer)["data"]}
        if states.get(name) != "ready":
            return
        body = json.dumps({"model_name": name}).encode()
        request = urllib.request.Request(f"{address}/load", body, headers)
        urllib.request.urlopen(request, timeout=settings.request_timeout, context=tls).close()
        print(f"{name}: the running server has put it in its place")
    except urllib.error.HTTPError as error:
        print(f"{name}: the running server goes on with the version it has: {error.read()[:300].decode(errors='replace')}", file=sys.stderr)
    except (OSError, ValueError, KeyError):
        return  # none runs here


def _trusting(settings: Settings) -> ssl.SSLContext | None:
    """Our own server's certificate, whatever name it is for."""
    if (files := settings.tls_files()) is None:
        return None
    context = ssl.create_default_context(cafile=str(files[0]))
    context.check_hostname = False
    return context


if __name__ == "__main__":
    sys.exit(main())
