#!/usr/bin/env bash
# Settings, API keys and logs in one file that only its owner may read, and back. Models are not in it: they can be downloaded.
#
#   scripts/backup.sh save FILE.tar.gz      may be done while the server runs
#   scripts/backup.sh restore FILE.tar.gz   stop the server before; what is there and differs is kept as NAME.before-TIME
#
# In it: .env, models.toml with the chat templates it names, the files that API_KEYS_FILE, API_KEY_FILE and
# RATE_LIMIT_STORAGE_FILE name, and LOG_DIR. Settings that stand only in the environment are not: keep the unit that sets them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 077

fail() {
    echo "scripts/backup.sh: $*" >&2
    exit 1
}

# Lines "name in the archive<tab>path", as the settings have it at this moment. Names: what is in the archive at $work, if anything is.
places() {
    .venv/bin/python - "$work" <<'PYTHON'
import sys
from pathlib import Path

from src.catalog import read_options
from src.errors import SettingsError
from src.settings import ROOT, Settings

try:
    settings = Settings.load()
    # Of an archive that is being restored the templates' names tell: models.toml, which names them, is not right before they are there.
    templates = {path.name.removeprefix("template ").replace("%", "/") for path in Path(sys.argv[1]).glob("template *")}
    if not templates:
        templates = {str(options.chat_template) for options in read_options(settings.models_path).values() if options.chat_template}
except SettingsError as error:
    sys.exit(str(error))
places = {"env": ROOT / ".env", "models.toml": settings.models_path / "models.toml", "logs": settings.log_path}
for name in ("api_keys_file", "api_key_file", "rate_limit_storage_file"):
    if path := getattr(settings, name):
        places[name] = ROOT / path
for template in sorted(templates):
    places["template " + template.replace("/", "%")] = settings.models_path / template
for name, path in places.items():
    print(name, path, sep="\t")
PYTHON
}

save() {
    local archive=$1 list name path status=0
    list=$(places)
    while IFS=$'\t' read -r name path; do
        if [ -e "$path" ]; then ln -s "$path" "$work/$name"; fi
    done <<<"$list"
    # -h: what the links stand for. A log that grows meanwhile makes GNU tar end with 1.
    tar -C "$work" -chzf "$archive.part" . || status=$?
    if [ $status -gt 1 ]; then
        rm -f "$archive.part"
        fail "tar failed"
    fi
    mv "$archive.part" "$archive"
    echo "$archive holds $(cd "$work" && ls -m)"
}

put() { # FROM TO
    local old
    if [ -e "$2" ]; then
        if cmp -s "$1" "$2"; then return; fi
        old=$2.before-$time
        mv "$2" "$old"
        echo "kept what was there: $old"
    fi
    mkdir -p "$(dirname "$2")"
    cp -p "$1" "$2"
    echo "restored $2"
}

restore() {
    local archive=$1 list name path file
    tar -C "$work" -xzf "$archive" || fail "$archive is no archive of this script"
    time=$(date +%Y%m%d-%H%M%S)
    if [ -e "$work/env" ]; then put "$work/env" .env; fi # first: it tells where the others belong
    list=$(places)
    while IFS=$'\t' read -r name path; do
        if [ "$name" = logs ] && [ -d "$work/logs" ]; then
            (cd "$work/logs" && find . -type f -not -name '.*') | while read -r file; do put "$work/logs/$file" "$path/${file#./}"; done
        elif [ -f "$work/$name" ]; then
            put "$work/$name" "$path"
        fi
    done <<<"$list"
}

[ $# = 2 ] || fail "usage: scripts/backup.sh save|restore FILE.tar.gz"
case $1 in save | restore) ;; *) fail "usage: scripts/backup.sh save|restore FILE.tar.gz" ;; esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$1" "$2"
