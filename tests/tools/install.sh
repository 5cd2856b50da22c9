#!/usr/bin/env bash
# Builds or installs the foreign programs that the tests check Bellhop with, into the folder given.
# Does nothing for what is there already. What cannot be installed is said, and the tests that need
# it then skip with that reason (or fail, with CI=true).
set -uo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
tools="${1:?usage: install.sh FOLDER}"
mkdir -p "$tools/bin"
tools="$(cd "$tools" && pwd)" # the builds run in other folders

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

# Installs Python packages into a folder of their own. Usage: install_python NAME FOLDER REQUIREMENTS
install_python() {
    local name="$1" folder="$tools/$2" requirements="$here/$3" stamp="${3%.txt}" want
    want="$(sha256sum "$requirements" | cut -d' ' -f1)"
    stamp_is_current "$stamp" "$want" && return 0
    command -v python3 >/dev/null || { say "python3 is missing: $name is not installed"; return 0; }
    say "installing $name ..."
    if python3 -m venv "$folder" &&
        "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"; then
        echo "$want" >"$tools/$stamp.stamp"
        say "$name is ready"
    else
        say "$name could not be installed"
    fi
}

# The Kubernetes that the tests run against: a folder of tests/tools/kubernetes.
kubernetes="${BELLHOP_KUBERNETES:-1.35}"

# Builds one Go program. Usage: build_go NAME MODULE-FOLDER PACKAGE OUTPUT LDFLAGS
# An interrupted build goes on where it was (Go keeps the packages that are done), and a program that
# is there, built from the same module file with the same flags, is not built again.
build_go() {
    local name="$1" module="$2" package="$3" output="$tools/bin/$4" flags="$5" stamp="${4//\//-}" want
    want="$({ cat "$module/go.mod"; cat "$module"/*.go; echo "$package $flags"; } | sha256sum | cut -d' ' -f1)"
    [ -x "$output" ] && stamp_is_current "$stamp" "$want" && return 0
    command -v go >/dev/null || { say "go is missing: $name is not built"; return 0; }
    say "building $name (minutes the first time) ..."
    mkdir -p "$(dirname "$output")"
    local total
    total="$(cd "$module" && go list -deps "$package" | wc -l)"
    # `-v` names each package when it is compiled; anything else it says is an error, and is shown.
    if (cd "$module" && CGO_ENABLED=0 go build -v -trimpath -ldflags="$flags" -o "$output" "$package" 2>&1) |
        awk -v name="$name" -v total="$total" '
            /^[A-Za-z0-9._~\/-]+$/ { if (++n % 100 == 0) say("tools: " name ": " n " of at most " total " packages"); next }
            !/^go: downloading / { say($0) }
            function say(line) { print line | "cat 1>&2"; fflush("cat 1>&2") }'; then
        echo "$want" >"$tools/$stamp.stamp"
        say "$name is ready"
    else
        say "$name could not be built"
    fi
}

# Builds one program of a Kubernetes. Usage: build_kubernetes VERSION PROGRAM
build_kubernetes() {
    local module="$here/kubernetes/$1" version v
    [ -f "$module/go.mod" ] || { say "no Kubernetes $1 here: there is $(ls -m "$here/kubernetes")"; return 0; }
    version="$(awk '$1 == "require" && $2 == "k8s.io/kubernetes" { print $3 }' "$module/go.mod")"
    v="k8s.io/component-base/version"
    # Without the version the API server calls itself v0.0.0, and clients that look at it refuse it.
    local flags="-s -w -X $v.gitVersion=$version -X $v.gitMajor=${1%.*} -X $v.gitMinor=${1#*.}"
    build_go "$2" "$module" "k8s.io/kubernetes/cmd/$2" "kubernetes-$1/$2" "$flags"
}

install_kubernetes() {
    build_go etcd "$here/etcd" go.etcd.io/etcd/server/v3 etcd '-s -w'
    build_kubernetes "$kubernetes" kubectl
    build_kubernetes "$kubernetes" kube-apiserver
}

# What the charts are tested with: programs, and what each Kubernetes says of its API.
install_charts() {
    build_go helm "$here/helm" helm.sh/helm/v4/cmd/helm helm '-s -w'
    build_go kubeconform "$here/kubeconform" github.com/yannh/kubeconform/cmd/kubeconform kubeconform '-s -w'
    build_go glua "$here/lua" github.com/yuin/gopher-lua/cmd/glua glua '-s -w'
    install_python checkov checkov checkov.txt
    local module
    for module in "$here"/kubernetes/*/; do
        copy_from "$module" k8s.io/kubernetes api/openapi-spec/swagger.json "kubernetes-$(basename "$module").json"
    done
    local kind crds=example/prometheus-operator-crd/monitoring.coreos.com
    for kind in podmonitors prometheusrules; do
        copy_from "$here/kubeconform" github.com/prometheus-operator/prometheus-operator \
            "${crds}_$kind.yaml" "monitoring.coreos.com_$kind.yaml"
    done
}

# Copies one file of a pinned Go module into the folder schemas. Usage: copy_from MODULE-FOLDER MODULE FILE NAME
copy_from() {
    local output="$tools/schemas/$4" want folder
    want="$(sha256sum "$1/go.mod" | cut -d' ' -f1)"
    [ -f "$output" ] && stamp_is_current "$4" "$want" && return 0
    command -v go >/dev/null || { say "go is missing: no $4"; return 0; }
    say "fetching $4 ..."
    mkdir -p "$tools/schemas"
    if (cd "$1" && go mod download "$2") && folder="$(cd "$1" && go list -m -f '{{.Dir}}' "$2")" &&
        install -m 644 "$folder/$3" "$output"; then
        echo "$want" >"$tools/$4.stamp"
    else
        say "$4 could not be fetched"
    fi
}

install_promtool
install_python 'the CloudEvents SDK' venv requirements.txt
install_kubernetes
install_charts
. "$here/node.sh"
install_node
build_go kstatus "$here/kstatus" . kstatus '-s -w'
exit 0
