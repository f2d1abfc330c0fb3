# To be sourced. Shows each phase of an installation as one line with the time it took; its output goes to a log.
#
#   phase TEXT COMMAND...              on a terminal, the time ticks; a command that fails has its output shown
#   expected=150 phase TEXT COMMAND... with an estimate, in seconds
#
# VERBOSE=1  shows the output as it comes

install_log=$PWD/logs/install.log

minutes() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# Ends with the script, should that be killed.
tick() {
    while sleep 1 && kill -0 $$ 2>/dev/null; do printf '\r%s … %s' "$1" "$(minutes $((SECONDS - $2)))"; done
}

# A folder of another user is left alone: there could be a link in it that leads root elsewhere.
open_install_log() {
    if [ -n "${install_log_is_open:-}" ]; then return; fi
    if ! { mkdir -p "${install_log%/*}" && [ -O "${install_log%/*}" ] && : >>"$install_log"; } 2>/dev/null; then
        install_log=$(mktemp)
    fi
    install_log_is_open=1
}

# COMMAND must not rely on `set -e`: its failure is caught here.
phase() {
    local text=$1 began=$SECONDS status=0 ticker="" start
    shift
    text+=${expected:+ (about $(minutes "$expected"))}
    open_install_log
    echo "== $text" >>"$install_log"
    start=$(wc -l <"$install_log")
    if [ -n "${VERBOSE:-}" ]; then
        echo "$text"
        "$@" 2>&1 | tee -a "$install_log" || return "${PIPESTATUS[0]}"
        return
    fi
    printf '%s …' "$text"
    if [ -t 1 ]; then
        tick "$text" "$began" &
        ticker=$!
    fi
    "$@" >>"$install_log" 2>&1 || status=$?
    if [ -n "$ticker" ]; then
        kill "$ticker" && wait "$ticker" 2>/dev/null || true
        printf '\r%s …' "$text"
    fi
    if [ "$status" = 0 ]; then
        printf ' %s\n' "$(minutes $((SECONDS - began)))"
    else
        printf ' failed after %s\n' "$(minutes $((SECONDS - began)))"
        tail -n +$((start + 1)) "$install_log" >&2
        echo "The output above is also in $install_log" >&2
    fi
    return "$status"
}
