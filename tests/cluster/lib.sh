# Sourced by the scripts of this folder: where things are, and whether the cluster runs.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
# One cluster per checkout: everything that it is lives here, or in namespaces of its processes.
state="$root/target/cluster"
tools="$root/target/tools/bin"
# The newest Kubernetes of tests/tools/kubernetes.
kubernetes=1.35
# Its cgroup, of a name that no other checkout has.
cgroup="bellhop-$(echo -n "$root" | sha256sum | cut -c1-8)"
export PATH="$tools/kubernetes-$kubernetes:$tools:$PATH"

say() { echo "cluster: $*" >&2; }
fail() { say "$*"; exit 1; }

# A number that no later process of the same id has.
started_at() { awk '{ sub(/.*\) /, ""); print $20 }' "/proc/$1/stat" 2>/dev/null; }

# The process that holds the cluster, as this side sees it. Fails when none runs.
holder() {
    local pid since
    read -r pid since 2>/dev/null <"$state/holder" || return 1
    [ "$(started_at "$pid")" = "$since" ] && echo "$pid"
}

# The first process inside. Fails when the cluster does not run.
first() {
    local pid children
    pid="$(holder)" && children="$(cat "/proc/$pid/task/$pid/children" 2>/dev/null)" &&
        [ -n "$children" ] && echo "${children%% *}"
}

# The mount points of the cgroup hierarchies: one per controller, or the one of version 2.
cgroups() { awk '$3 == "cgroup" || ($3 == "cgroup2" && $2 == "/sys/fs/cgroup") { print $2 }' /proc/mounts; }
