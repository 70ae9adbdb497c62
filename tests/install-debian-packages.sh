#!/bin/sh
# Debian packages that some tests use and that pip cannot give. `make test` runs this; it is idempotent.
#
#   prometheus   promtool, which checks and tests the alert rules of deploy/prometheus
#
# Without root, apt or a network nothing is installed and nothing fails: the tests that need a package skip
# and say so. In CI (CI=true) that would hide a test, so there it fails.
set -u

missing=""
command -v promtool >/dev/null 2>&1 || missing="$missing prometheus"
[ -z "$missing" ] && exit 0

give_up() {
    echo "not installed:$missing ($1); the tests that need them will skip" >&2
    [ "${CI:-}" = "true" ] && exit 1
    exit 0
}

[ "$(id -u)" = 0 ] || give_up "not root"
command -v apt-get >/dev/null 2>&1 || give_up "no apt-get"

export DEBIAN_FRONTEND=noninteractive
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
# No service starts: the package's own server is not wanted, only its tool.
apt="apt-get --quiet --yes --no-install-recommends -o Acquire::Retries=2 -o Acquire::http::Timeout=20"
# shellcheck disable=SC2086 # lists of words
if ! { RUNLEVEL=1 $apt install $missing || { $apt update && RUNLEVEL=1 $apt install $missing; }; } >"$log" 2>&1; then
    tail -n 3 "$log" >&2
    give_up "apt-get failed"
fi
echo "installed:$missing"
