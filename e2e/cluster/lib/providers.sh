# shellcheck shell=bash
# CLUSTER chooses who makes the cluster: `local` as in local.sh, `kind` the kind tool with Docker, `existing` nobody.

# The function that carries out a command for the chosen provider.
provider_command() {
  local name=${provider}_${1//-/_}
  declare -F "$name" >/dev/null || die "CLUSTER is local, kind or existing, not $provider"
  echo "$name"
}

kubectl_for_provider() { "${provider}_kubectl" "$@"; }

with_kubeconfig() { KUBECONFIG=$(kubeconfig) PATH=$(bin_path) "$@"; }

# kind: the same manifests and the same images, built by Docker from the same Dockerfiles.

kind_kubectl() { with_kubeconfig kubectl "$@"; }

kind_build() {
  local component image context
  exclusive
  mkdir -p "$cache"/{bin,log}
  for component in envoy-gateway helm prometheus; do
    if [ ! -d "$(bin_dir "$component")" ]; then build_component "$component"; fi
  done
  for image in envoy-gateway envoy prometheus; do
    context=$(mktemp -d)
    cp "$here/images/$image/"* "$context/"
    if [ "$image" != envoy ]; then cp "$(bin_dir "$image")/"* "$context/"; fi
    kind_build_image "$(image_name "$image")" "$context"
    rm -rf "$context"
  done
  if [ ! -d "$(rendered_manifests)" ]; then render_manifests; fi
}

kind_up() {
  local image
  [ -d "$(rendered_manifests)" ] || die "parts are not built yet: run 'cluster build' first"
  if ! kind get clusters | grep -qx "$kind_name"; then
    kind create cluster --name "$kind_name" --config "$here/../kind.yaml" --kubeconfig "$(kubeconfig)" --wait 120s
  fi
  for image in envoy-gateway envoy prometheus; do kind_load_image "$(image_name "$image")"; done
  apply_manifests
}

kind_down() { kind delete cluster --name "$kind_name" --kubeconfig "$(kubeconfig)"; }

kind_status() { kind_kubectl get nodes,gateway,pods --all-namespaces; }

kind_build_image() { docker build --tag "$1" "${@:3}" "$2"; }

kind_load_image() {
  if [ -f "$1" ]; then kind load image-archive "$1" --name "$kind_name"; else kind load docker-image "$1" --name "$kind_name"; fi
}

kind_enter() { with_kubeconfig "$@"; }

# existing: the cluster of the current kubeconfig. Nothing is started or ended; CLUSTER_APPLY=1 applies our manifests.

existing_kubectl() { with_kubeconfig kubectl "$@"; }

existing_build() { say "CLUSTER=existing: nothing is built; its images come from where it gets its own"; }

existing_up() {
  existing_kubectl version >/dev/null || die "the cluster of $(kubeconfig) does not answer"
  if [ "${CLUSTER_APPLY:-}" = 1 ]; then
    [ -d "$(rendered_manifests)" ] || die "the manifests are not rendered: run 'CLUSTER=kind cluster build' first"
    apply_manifests
  fi
}

existing_down() { say "CLUSTER=existing: left as it is"; }

existing_status() { existing_kubectl get nodes,gateway,pods --all-namespaces; }

existing_build_image() {
  if [ "${IMAGE_PREFIX:-localhost/}" = localhost/ ]; then say "CLUSTER=existing: $1 is not built, its nodes must have it; or set IMAGE_PREFIX"; else kind_build_image "$@"; fi
}

existing_load_image() { if [ "${IMAGE_PREFIX:-localhost/}" != localhost/ ]; then docker push "$1"; fi; }

existing_enter() { with_kubeconfig "$@"; }
