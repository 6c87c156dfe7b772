# shellcheck shell=bash
# What every part of the cluster script shares: where things are, which versions, and how messages look.

readonly here=$CLUSTER_SCRIPTS
readonly cache=${CLUSTER_HOME:-$HOME/.cache/modelrollout-cluster}
readonly run=$cache/run
readonly provider=${CLUSTER:-local}
readonly node_ip=172.30.0.1
readonly dns_ip=10.96.0.10
# The kubelet keeps all cgroups of pods below this one, so that `down` knows which are those of this CLUSTER_HOME.
cgroup=modelrollout-$(cksum <<<"$cache" | cut -d' ' -f1)
readonly cgroup
readonly kind_name=modelrollout
readonly base_image=localhost/python:3.11

say() { printf '%s\n' "$*" >&2; }
die() {
  say "cluster: $*"
  exit 1
}

require_root() { [ "$(id -u)" = 0 ] || die "the local cluster makes namespaces and mounts: run it as root, or use CLUSTER=kind"; }

# One change of the cluster or of the cache at a time; the lock goes when the script ends.
exclusive() {
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock --nonblock 9 || {
    say "waiting for another cluster command to end"
    flock 9
  }
}

# The version of a module that a go.mod requires directly.
module_version() { awk -v module="$2" '$1 == "require" { $1 = ""; $0 = $0 } $1 == module { print $2; exit }' "$here/modules/$1/go.mod"; }

module_dir() { (cd "$here/modules/$1" && go mod download "$2" && go list -mod=readonly -m -f '{{.Dir}}' "$2"); }

# The directory of a component's binaries: a new version, or a new recipe, is a new directory.
bin_dir() {
  local key
  key=$( (recipe "$1" && cat "$here/modules/$1/"*) | sha256sum | cut -c1-8)
  echo "$cache/bin/$1-$(component_version "$1")-$key"
}

bin_path() {
  local component path=
  for component in "${components[@]}"; do path+=$(bin_dir "$component"):; done
  echo "$path$PATH"
}

kubeconfig() {
  case $provider in
    local) echo "$run/admin.kubeconfig" ;;
    kind) echo "$cache/kind.kubeconfig" ;;
    *) echo "${KUBECONFIG:-$HOME/.kube/config}" ;;
  esac
}

# Retries a command each 0.2 s until it succeeds or the seconds are over; its output is of no interest.
until_ok() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1 9>&-; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.2
  done
}
