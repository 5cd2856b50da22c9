#!/usr/bin/env bash
# Builds or installs the foreign programs that the tests check Bellhop with, into the folder given.
# Does nothing for what is there already. What cannot be installed is said, and the tests that need
# it then skip with that reason (or fail, with CI=true).
set -uo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
tools="${1:?usage: install.sh FOLDER}"
mkdir -p "$tools/bin"

say() { echo "tools: $*" >&2; }

stamp_is_current() { [ -f "$tools/$1.stamp" ] && [ "$(cat "$tools/$1.stamp")" = "$2" ]; }

install_promtool() {
    local want
    want="$(sha256sum "$here/go.mod" | cut -d' ' -f1)"
    stamp_is_current promtool "$want" && return 0
    command -v go >/dev/null || { say "go is missing: promtool is not built"; return 0; }
    say "building promtool (minutes the first time) ..."
    if (cd "$here" && CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$tools/bin/promtool" \
        github.com/prometheus/prometheus/cmd/promtool); then
        echo "$want" >"$tools/promtool.stamp"
        say "promtool is ready"
    else
        say "promtool could not be built"
    fi
}

install_python() {
    local want
    want="$(sha256sum "$here/requirements.txt" | cut -d' ' -f1)"
    stamp_is_current python "$want" && return 0
    command -v python3 >/dev/null || { say "python3 is missing: no CloudEvents SDK"; return 0; }
    say "installing the CloudEvents SDK for Python ..."
    if python3 -m venv "$tools/venv" &&
        "$tools/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"; then
        echo "$want" >"$tools/python.stamp"
        say "the CloudEvents SDK is ready"
    else
        say "the CloudEvents SDK could not be installed"
    fi
}

install_promtool
install_python
exit 0
