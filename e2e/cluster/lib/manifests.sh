# shellcheck shell=bash
# What runs in the cluster besides Kubernetes: Gateway API, Envoy Gateway with one Gateway, Prometheus.
# Third parties' manifests are rendered from their Go modules into the cache; ours are in manifests/.

rendered_manifests() {
  local key
  key=$( (cat "$here/manifests/"* "$here/lib/manifests.sh" && for image in "${system_images[@]}"; do image_name "$image" && archive_of "$image"; done) | sha256sum | cut -c1-8)
  echo "$cache/manifests/$(component_version envoy-gateway)-$key"
}

render_manifests() {
  local target
  target=$(rendered_manifests)
  rm -rf "$target.part"
  mkdir -p "$target.part"
  render_crds >"$target.part/10-crds.yaml"
  render_envoy_gateway >"$target.part/20-envoy-gateway.yaml"
  render_ours prometheus >"$target.part/30-prometheus.yaml"
  render_ours gateway >"$target.part/40-gateway.yaml"
  mv "$target.part" "$target"
}

# Each file of the standard channel, and Envoy Gateway's own.
render_crds() {
  local gateway_api envoy_gateway file
  gateway_api=$(module_dir envoy-gateway sigs.k8s.io/gateway-api)
  envoy_gateway=$(module_dir envoy-gateway github.com/envoyproxy/gateway)
  for file in "$gateway_api"/config/crd/standard/*.yaml "$envoy_gateway"/charts/gateway-helm/charts/crds/crds/generated/*.yaml; do
    case ${file##*/} in kustomization.yaml) continue ;; esac
    printf -- '---\n'
    cat "$file"
  done
}

# The chart of the module is the source of the released one: its values have two placeholders.
render_envoy_gateway() {
  local chart
  chart=$(mktemp -d)
  cp -r "$(module_dir envoy-gateway github.com/envoyproxy/gateway)/charts/gateway-helm/." "$chart"
  chmod -R u+w "$chart"
  # shellcheck disable=SC2016
  sed -e 's#${GatewayImage}#'"$(image_name envoy-gateway)"'#' -e 's#${GatewayImagePullPolicy}#IfNotPresent#' "$chart/values.tmpl.yaml" >"$chart/values.yaml"
  "$(bin_dir helm)/helm" template eg "$chart" --namespace envoy-gateway-system --values "$here/manifests/envoy-gateway-values.yaml"
  rm -rf "$chart"
}

render_ours() {
  local key
  key=$( (cat "$here/manifests/$1.yaml" && archive_of prometheus) | sha256sum | cut -c1-8)
  sed -e "s#configuration: key\$#configuration: \"$key\"#" -e "s#image: prometheus\$#image: $(image_name prometheus)#" -e "s#image: envoy\$#image: $(image_name envoy)#" "$here/manifests/$1.yaml"
}

apply() { kubectl_for_provider apply --server-side --force-conflicts -f "$1" >/dev/null; }

apply_manifests() {
  local rendered
  rendered=$(rendered_manifests)
  apply "$rendered/10-crds.yaml"
  kubectl_for_provider wait --for=condition=Established --timeout=30s crd --all >/dev/null
  ensure_namespace envoy-gateway-system
  apply "$rendered/20-envoy-gateway.yaml"
  apply "$rendered/30-prometheus.yaml"
  apply "$rendered/40-gateway.yaml"
  kubectl_for_provider --namespace gateway-system wait --for=condition=Programmed --timeout=120s gateway/gateway >/dev/null
  kubectl_for_provider --namespace monitoring rollout status --timeout=120s deployment/prometheus >/dev/null
}

ensure_namespace() { kubectl_for_provider create namespace "$1" --dry-run=client -o yaml | kubectl_for_provider apply --server-side -f - >/dev/null; }

stack_ready() {
  kubectl_for_provider --namespace gateway-system wait --for=condition=Programmed --timeout=1s gateway/gateway >/dev/null 2>&1 &&
    kubectl_for_provider --namespace monitoring wait --for=condition=Available --timeout=1s deployment/prometheus >/dev/null 2>&1
}
