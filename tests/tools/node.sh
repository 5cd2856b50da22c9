# Sourced by install.sh: what the cluster with real pods (tests/cluster) needs beyond the API server.
# Only for the newest Kubernetes.
node_kubernetes=1.35

# Programs, and the Debian packages that have them.
node_packages=(
    buildah:buildah containerd:containerd ctr:containerd runc:runc conntrack:conntrack ip:iproute2
    nft:nftables openssl:openssl /usr/lib/cni/bridge:containernetworking-plugins
)

# Installs the packages that are missing, on Debian and as root; elsewhere says which.
install_node_packages() {
    local pair missing=()
    for pair in "${node_packages[@]}"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "the cluster of the e2e tests needs ${missing[*]} (names of Debian packages), and root"
        return 0
    fi
    say "installing Debian packages for the cluster of the e2e tests: ${missing[*]} ..."
    if apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes \
        --no-install-recommends "${missing[@]}" >/dev/null; then
        say "the packages are installed"
    else
        say "the packages could not be installed"
    fi
}

# The CRDs of the Gateway API, as its Go module carries them.
install_gateway_api() {
    local module="$here/gateway-api" want folder
    want="$(sha256sum "$module/go.mod" | cut -d' ' -f1)"
    stamp_is_current gateway-api "$want" && return 0
    command -v go >/dev/null || { say "go is missing: no CRDs of the Gateway API"; return 0; }
    if folder="$(cd "$module" && go mod download sigs.k8s.io/gateway-api &&
        go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)" &&
        mkdir -p "$tools/gateway-api" &&
        install -m 644 "$folder"/config/crd/standard/gateway.networking.k8s.io_*.yaml "$tools/gateway-api"; then
        echo "$want" >"$tools/gateway-api.stamp"
        say "the CRDs of the Gateway API are ready"
    else
        say "the CRDs of the Gateway API could not be fetched"
    fi
}

install_node() {
    # Off Linux too: a run against a cluster of one's own (E2E_CONTEXT) applies them.
    install_gateway_api
    [ "$(uname)" = Linux ] || { say "no cluster of the e2e tests here: it runs on Linux alone"; return 0; }
    install_node_packages
    local program
    for program in kube-apiserver kubectl kube-controller-manager kube-scheduler kubelet kube-proxy; do
        build_kubernetes "$node_kubernetes" "$program"
    done
    build_go coredns "$here/coredns" . coredns '-s -w'
    # What else runs in pods of the tests; its own main package, no dependencies.
    build_go pods "$here/pods" . pods '-s -w'
}
