#!/usr/bin/env bash
# The first process inside the namespaces of the node: starts its parts and starts again each that ends.
# Called by local.sh, which sets these:
# shellcheck disable=SC2154
: "${node_ip:?}" "${dns_ip:?}" "${cgroup:?}" "${run:?}" "${store:?}" "${pause:?}" "${kubernetes:?}" "${containerd:?}" "${coredns:?}"
set -euo pipefail
cd "$run"
export KUBECONFIG=$run/admin.kubeconfig

# Starts a part and keeps it running; its process id is in NAME.id, for those who look.
keep() {
  local name=$1
  shift
  while :; do
    "$@" >>"log/$name.log" 2>&1 &
    echo $! >"$name.id"
    wait $! || true
    echo "$(date +%T) $name ended; starting it again"
    sleep 0.5
  done &
}

private_mounts() {
  mkdir -p /run/netns /run/containerd /var/lib/cni /var/log/pods /var/log/containers /var/lib/modelrollout-cluster
  local directory
  for directory in /run/netns /run/containerd /var/lib/cni; do mount -t tmpfs tmpfs "$directory"; done
  mount --bind pods /var/log/pods
  mount --bind containers /var/log/containers
  # Where pods keep what should outlive them (Prometheus' samples).
  mount --bind data /var/lib/modelrollout-cluster
  # For commands that enter: names of services resolve as in a pod of the namespace default.
  printf 'nameserver %s\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n' "$dns_ip" >enter-resolv.conf
  mount --bind enter-resolv.conf /etc/resolv.conf
}

network() {
  ip link set lo up
  # There may be no dummy device; a bridge carries an address as well.
  ip link add node0 type bridge
  ip address add "$node_ip/24" dev node0
  ip link set node0 up
  # Nothing leaves the namespace, but without a default route services have no way to start from.
  ip route add default dev node0
  sysctl -qw net.ipv4.ip_forward=1
}

credentials() {
  openssl genrsa -out sa.key 2048 2>/dev/null
  openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
  local admin node
  admin=$(openssl rand -hex 16) node=$(openssl rand -hex 16)
  (umask 077 && printf '%s,admin,1,system:masters\n%s,system:node:node0,2,"system:nodes,system:masters"\n' "$admin" "$node" >tokens.csv)
  write_kubeconfig kubelet "$node"
  write_kubeconfig admin "$admin"
}

write_kubeconfig() {
  (umask 077 && cat >"$1.kubeconfig") <<K
apiVersion: v1
kind: Config
clusters: [{name: local, cluster: {server: "https://$node_ip:6443", certificate-authority: $run/certs/apiserver.crt}}]
users: [{name: user, user: {token: $2}}]
contexts: [{name: local, context: {cluster: local, user: user}}]
current-context: local
K
}

configuration() {
  echo "nameserver $dns_ip" >resolv.conf
  # cgroup v1 is refused by default since 1.35.
  cat >kubelet.yaml <<K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
failCgroupV1: false
failSwapOn: false
localStorageCapacityIsolation: false
enforceNodeAllocatable: []
containerRuntimeEndpoint: unix://$run/containerd/containerd.sock
clusterDNS: [$dns_ip]
clusterDomain: cluster.local
resolvConf: $run/resolv.conf
volumePluginDir: $run/kubelet/volume-plugins
evictionHard: {nodefs.available: "1%", imagefs.available: "1%", memory.available: "100Mi"}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
K
  # restrict_oom_score_adj: without CAP_SYS_RESOURCE lowering it is refused, and every sandbox fails.
  cat >containerd.toml <<K
version = 3
root = "$store"
state = "$run/containerd/state"
[grpc]
  address = "$run/containerd/containerd.sock"
[plugins.'io.containerd.internal.v1.opt']
  path = "$run/containerd/opt"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "$pause"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  runtime_path = "$containerd/containerd-shim-runc-v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = "$(command -v runc)"
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "$run/cni"
K
  cat >cni/10-bridge.conflist <<'K'
{"cniVersion":"1.0.0","name":"net","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"hairpinMode":true,
  "ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
K
  cat >Corefile <<K
.:53 {
    bind $node_ip
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        kubeconfig $run/admin.kubeconfig local
        pods insecure
    }
    cache 5
}
K
}

# The store is kept for its images; the containers in it belong to a cluster that is no more. Without its CRI plugin
# containerd starts without taking them over, so that they can be removed.
forget_containers() {
  [ -d "$store" ] || return 0
  rm -rf "$store"/io.containerd.grpc.v1.cri
  sed -e 's#^version = 3#&\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]#' -e "s#containerd/state#containerd/old-state#" \
    -e "s#containerd.sock#old.sock#" containerd.toml >containerd-old.toml
  "$containerd/containerd" --config containerd-old.toml >log/containerd-old.log 2>&1 &
  local pid=$! ctr=("$containerd/ctr" --address "$run/containerd/old.sock" --namespace k8s.io)
  until "${ctr[@]}" version >/dev/null 2>&1; do sleep 0.1; done
  "${ctr[@]}" containers ls --quiet 2>/dev/null | xargs --no-run-if-empty "${ctr[@]}" containers rm >/dev/null 2>&1 || true
  "${ctr[@]}" sandboxes ls 2>/dev/null | awk 'NR > 1 { print $1 }' | xargs --no-run-if-empty "${ctr[@]}" sandboxes rm --force >/dev/null 2>&1 || true
  kill "$pid"
  wait "$pid" || true
}

control_plane() {
  keep etcd "$kubernetes/etcd" --data-dir etcd --unsafe-no-fsync --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
  # InternalIP: exec and logs would look up the node's name otherwise.
  keep apiserver "$kubernetes/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file=sa.pub --service-account-signing-key-file=sa.key --token-auth-file=tokens.csv --authorization-mode=Node,RBAC \
    --service-cluster-ip-range=10.96.0.0/16 --cert-dir=certs --bind-address="$node_ip" --advertise-address="$node_ip" --secure-port=6443 \
    --kubelet-preferred-address-types=InternalIP --allow-privileged
  forget_containers
  keep containerd "$containerd/containerd" --config containerd.toml
  until "$kubernetes/kubectl" get --raw /readyz >/dev/null 2>&1; do sleep 0.1; done
  keep controller-manager "$kubernetes/kube-controller-manager" --kubeconfig admin.kubeconfig --service-account-private-key-file=sa.key \
    --root-ca-file=certs/apiserver.crt --leader-elect=false --allocate-node-cidrs --cluster-cidr=10.244.0.0/16 --bind-address=127.0.0.1
  keep scheduler "$kubernetes/kube-scheduler" --kubeconfig admin.kubeconfig --leader-elect=false --bind-address=127.0.0.1
}

node() {
  keep kubelet "$kubernetes/kubelet" --config kubelet.yaml --kubeconfig kubelet.kubeconfig --hostname-override node0 --node-ip "$node_ip" \
    --root-dir "$run/kubelet" --cert-dir "$run/kubelet/pki"
  # The limits of connection tracking are the host's, and not ours to change.
  keep proxy "$kubernetes/kube-proxy" --kubeconfig admin.kubeconfig --hostname-override node0 --proxy-mode nftables --cluster-cidr 10.244.0.0/16 \
    --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 0s --conntrack-tcp-timeout-close-wait 0s
  keep coredns "$coredns/coredns" -conf Corefile
  # CoreDNS is a process on the node's address, not a pod: Envoy waits for ever without names.
  until "$kubernetes/kubectl" apply -f - >/dev/null; do sleep 0.2; done <<K
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec: {clusterIP: $dns_ip, ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
endpoints: [{addresses: [$node_ip], conditions: {ready: true}}]
K
}

private_mounts
network
credentials
configuration
control_plane
node
wait
