# shellcheck shell=bash
# How each component is built from its Go module. In the order in which they are needed.

readonly components=(kubernetes containerd coredns pause envoy-gateway helm prometheus)

# Sets module, packages, ldflags and tags; printed, they are part of the key of the cache.
recipe() {
  local k=k8s.io/kubernetes/cmd v=k8s.io/component-base/version version
  module='' packages=() ldflags='-s -w' tags=''
  case $1 in
    kubernetes)
      module=k8s.io/kubernetes
      packages=("$k/kube-apiserver" "$k/kube-controller-manager" "$k/kube-scheduler" "$k/kubelet" "$k/kube-proxy" "$k/kubectl" go.etcd.io/etcd/server/v3)
      # Without these the version reads v0.0.0-master, and a chart's kubeVersion check fails.
      version=$(module_version kubernetes "$module")
      ldflags+=" -X $v.gitVersion=$version -X $v.gitMajor=1 -X $v.gitMinor=$(cut -d. -f2 <<<"$version") -X $v.gitTreeState=clean"
      ;;
    containerd)
      module=github.com/containerd/containerd/v2
      packages=("$module/cmd/containerd" "$module/cmd/containerd-shim-runc-v2" "$module/cmd/ctr")
      tags=no_btrfs,no_zfs,no_devmapper
      ;;
    coredns)
      module=github.com/coredns/coredns
      packages=("$module")
      ;;
    pause)
      module=modelrollout.dev/e2e/pause
      packages=(.)
      ;;
    envoy-gateway)
      module=github.com/envoyproxy/gateway
      packages=("$module/cmd/envoy-gateway")
      ldflags+=" -X $module/internal/cmd/version.envoyGatewayVersion=$(module_version envoy-gateway "$module")"
      ;;
    helm)
      module=helm.sh/helm/v4
      packages=("$module/cmd/helm")
      ldflags+=" -X $module/internal/version.version=$(module_version helm "$module")"
      ;;
    prometheus)
      module=github.com/prometheus/prometheus
      packages=("$module/cmd/prometheus" "$module/cmd/promtool")
      # v0.315.0 of the module is 3.15.0 of the program.
      version=$(module_version prometheus "$module")
      version=${version#v0.3}
      ldflags+=" -X github.com/prometheus/common/version.Version=3.$((10#${version%%.*})).${version#*.}"
      # Of the many ways to discover targets only Kubernetes' is built: it halves the time.
      tags=remove_all_sd,enable_kubernetes_sd
      ;;
    *) die "no component is called $1" ;;
  esac
  echo "${packages[*]} $ldflags $tags"
}

component_version() {
  if [ "$1" = pause ]; then
    echo v1
  else
    recipe "$1" >/dev/null
    module_version "$1" "$module"
  fi
}
