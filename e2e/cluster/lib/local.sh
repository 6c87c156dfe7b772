# shellcheck shell=bash
# Starting, watching and ending the node. Everything runs below one process, the first of a process namespace:
# ending that one ends every process, mount and interface with it.

# A process is known by its id and the time of its start, so that an id that was given to another is never ended.
start_time() { awk '{ sub(/.*\) /, ""); print $20 }' "/proc/$1/stat" 2>/dev/null; }

remember() { echo "$1 $(start_time "$1")" >"$run/$2.pid"; }

remembered() {
  local pid started
  read -r pid started 2>/dev/null <"$run/$1.pid" || return 1
  [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ] && echo "$pid"
}

node_alive() { remembered init >/dev/null; }

# The child gets a signal when nsenter dies, so that ending `enter` from outside ends the command too.
enter_node() {
  local init
  init=$(remembered init) || die "the cluster is not up"
  nsenter --target "$init" --net --mount --pid -- setpriv --pdeathsig TERM -- env --chdir="$PWD" "$@" 9>&-
}

node_kubectl() { enter_node "$(bin_dir kubernetes)/kubectl" --kubeconfig "$(kubeconfig)" "$@"; }

local_kubectl() { node_kubectl "$@"; }

local_enter() {
  [ $# -gt 0 ] || die "usage: cluster enter COMMAND ..."
  local init
  init=$(remembered init) || die "the cluster is not up"
  KUBECONFIG=$(kubeconfig) PATH=$(bin_path) exec nsenter --target "$init" --net --mount --pid -- \
    setpriv --pdeathsig TERM -- env --chdir="$PWD" "$@"
}

# Answers within about a second: is every part of the node at work?
node_healthy() { node_alive && enter_node bash -c "$health_checks" - "$run" "$(bin_dir kubernetes)" "$(bin_dir containerd)" "$node_ip" >/dev/null 2>&1; }

# shellcheck disable=SC2016  # it expands in the shell inside
readonly health_checks='
  set -e
  run=$1 kubernetes=$2 containerd=$3 node_ip=$4
  kubectl() { "$kubernetes/kubectl" --kubeconfig "$run/admin.kubeconfig" --request-timeout=2s "$@"; }
  answers() {
    exec 3<>"/dev/tcp/127.0.0.1/$1"
    printf "GET /healthz HTTP/1.0\r\n\r\n" >&3
    read -r -t 2 line <&3
    [[ $line = *" 200 "* ]]
  }
  kubectl get --raw /readyz
  [ "$(kubectl get node node0 -o "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}")" = True ]
  "$containerd/ctr" --address "$run/containerd/containerd.sock" --connect-timeout 1s --timeout 2s version
  answers 10248  # kubelet
  answers 10256  # kube-proxy
  for port in 10257 10259; do exec 3<>"/dev/tcp/127.0.0.1/$port"; done  # controller manager and scheduler, with TLS
  exec 3<>"/dev/tcp/$node_ip/53"'

node_start() {
  local unshared settings
  require_cgroups
  mkdir -p "$run"/{log,kubelet,etcd,containerd,cni,data,pods,containers} "$cache/containerd"
  settings=(node_ip="$node_ip" dns_ip="$dns_ip" cgroup="$cgroup" run="$run" store="$cache/containerd/root" pause="$(image_name pause)"
    kubernetes="$(bin_dir kubernetes)" containerd="$(bin_dir containerd)" coredns="$(bin_dir coredns)")
  # /sys stays the host's: a fresh one would hide the cgroups.
  setsid unshare --net --mount --pid --fork --kill-child --mount-proc \
    env "${settings[@]}" bash "$here/lib/node.sh" </dev/null >"$run/log/node.log" 2>&1 9>&- &
  unshared=$!
  disown "$unshared"
  remember "$unshared" unshare
  until_ok 10 first_inside "$unshared" || die "the namespaces cannot be made: $(cat "$run/log/node.log")"
  remember "$(first_inside "$unshared")" init
}

# The child of a process that is number 1 in a process namespace of its own.
first_inside() {
  local child
  for child in $(pgrep -P "$1"); do
    if grep -Eqs '^NSpid:.*[[:space:]]1$' "/proc/$child/status"; then
      echo "$child"
      return
    fi
  done
  return 1
}

# What the kubelet changes in the kernel for everyone; put back by node_stop.
readonly kubelet_sysctls=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes)

require_cgroups() {
  local hierarchy
  for hierarchy in /sys/fs/cgroup/*/; do
    mkdir -p "$hierarchy$cgroup" 2>/dev/null || continue
    # A cpuset starts with no processors and no memory, and then takes no process.
    # Pods come before what else the machine does: otherwise one busy process weighs as much as all of them.
    if [ -e "$hierarchy$cgroup/cpu.shares" ]; then echo 10240 >"$hierarchy$cgroup/cpu.shares"; fi
    if [ -e "$hierarchy$cgroup/cpuset.cpus" ]; then
      cat "${hierarchy}cpuset.cpus" >"$hierarchy$cgroup/cpuset.cpus"
      cat "${hierarchy}cpuset.mems" >"$hierarchy$cgroup/cpuset.mems"
    fi
  done
  mkdir -p "$run"
  sysctl "${kubelet_sysctls[@]}" >"$run/sysctls" 2>/dev/null || true
}

node_stop() {
  local init
  if init=$(remembered init); then
    kill -KILL "$init"
    until_ok 20 process_gone "$init" || die "process $init does not end"
  fi
  if init=$(remembered unshare); then
    kill -KILL "$init"
    until_ok 5 process_gone "$init" || true
  fi
  until_ok 10 remove_cgroups || say "some cgroups below $cgroup are still in use"
  if [ -s "$run/sysctls" ]; then sysctl --quiet --load "$run/sysctls" 2>/dev/null || true; fi
  rm -rf "$run"
}

process_gone() { [ ! -e "/proc/$1" ]; }

# Only directories are removed: those inside are files of the kernel.
remove_cgroups() {
  find /sys/fs/cgroup/*/"$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
  ! compgen -G "/sys/fs/cgroup/*/$cgroup" >/dev/null
}

node_up() {
  if node_alive; then
    # Each part is restarted by itself when it ends, which takes a second or two.
    if until_ok "$1" node_healthy; then return; fi
    say "the node does not recover: starting it anew"
  fi
  node_stop
  node_start
  until_ok 60 node_healthy
}

local_up() {
  local started
  require_root
  exclusive
  build_missing
  started=$SECONDS
  if ! node_up 20; then
    say "the node does not start; once more, without the images that were kept"
    node_stop
    rm -rf "$cache/containerd"
    node_up 0 || die "the node does not start; see $run/log"
  fi
  if [ "$(cat "$run/applied" 2>/dev/null)" = "$(rendered_manifests)" ] && stack_ready; then
    say "the cluster is up"
    return
  fi
  say "node Ready after $((SECONDS - started)) s"
  load_system_images
  apply_manifests
  say "Gateway programmed and Prometheus ready after $((SECONDS - started)) s"
  rendered_manifests >"$run/applied"
}

local_down() {
  require_root
  exclusive
  node_stop
  say "the cluster is down"
}

local_status() {
  node_alive || {
    echo "the cluster is down"
    return 1
  }
  if node_healthy; then echo "the node is healthy"; else echo "the node is NOT healthy: 'cluster up' repairs it"; fi
  enter_node ps -eo rss=,comm= | awk '
    { total += $1; if ($2 ~ /^(etcd|kube|contain|coredns)/) own += $1; else pods += $1 }
    END { printf "memory (resident): %d MiB, of which the node %d MiB and pods %d MiB\n", total / 1024, own / 1024, pods / 1024 }'
  node_kubectl get gateway,pods --all-namespaces
}
