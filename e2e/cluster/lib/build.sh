# shellcheck shell=bash
# Everything slow, done once: system packages, Go binaries, images, rendered manifests.

readonly system_packages=(runc containernetworking-plugins nftables iptables conntrack iproute2 kmod procps openssl mmdebstrap buildah ca-certificates chromium)

install_system_packages() {
  local missing=() package
  for package in "${system_packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local policy=/usr/sbin/policy-rc.d created=
  # Exit code 101 keeps apt from starting what it installs as a service.
  if [ ! -e $policy ]; then
    created=$policy
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
  fi
  local result=0
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } || result=$?
  [ -z "$created" ] || rm -f "$created"
  return $result
}

build_component() {
  local target directory=$here/modules/$1 module packages ldflags tags
  target=$(bin_dir "$1")
  recipe "$1" >/dev/null
  # Built elsewhere and moved, so that a directory that exists is always a whole one.
  rm -rf "$target.part"
  mkdir -p "$target.part"
  (cd "$directory" && CGO_ENABLED=0 go build -mod=readonly -buildvcs=false -trimpath -tags "$tags" -ldflags "$ldflags" -o "$target.part/" "${packages[@]}")
  # go names a binary after the last element of its package's path.
  if [ -e "$target.part/server" ]; then mv "$target.part/server" "$target.part/etcd"; fi
  mv "$target.part" "$target"
}

# Runs one slow step with its output in a log, and says what it does and how long it takes.
step() {
  local name=$1 result=0 started=$SECONDS log pid
  shift
  step_number=$((step_number + 1))
  log=$cache/log/build-${name// /-}.log
  say "[$step_number/$step_count] $name ..."
  ("$@") >"$log" 2>&1 9>&- &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    if [ $(((SECONDS - started) % 20)) = 0 ]; then say "        $name: $((SECONDS - started)) s, $(tail -c 200 "$log" | tail -n 1 | cut -c1-80)"; fi
  done
  wait "$pid" || result=$?
  if [ $result != 0 ]; then
    tail -n 25 "$log" >&2
    die "$name failed after $((SECONDS - started)) s; all of its output is in $log"
  fi
  say "[$step_number/$step_count] $name: done in $((SECONDS - started)) s"
}

# The steps that are still to do, one function name and its argument per line.
missing_steps() {
  local component image
  packages_complete || echo "system-packages install_system_packages"
  for component in "${components[@]}"; do
    [ -d "$(bin_dir "$component")" ] || echo "$component-$(component_version "$component") build_component $component"
  done
  base_image_exists || echo "base-image build_base_image"
  for image in "${system_images[@]}"; do
    [ -e "$(archive_of "$image")" ] || echo "image-$image build_system_image $image"
  done
  [ -d "$(rendered_manifests)" ] || echo "manifests render_manifests"
}

packages_complete() {
  local package
  for package in "${system_packages[@]}"; do dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q 'ok installed' || return 1; done
}

build_missing() {
  local steps line step_number=0 step_count
  mapfile -t steps < <(missing_steps)
  step_count=${#steps[@]}
  mkdir -p "$cache"/{bin,log,images}
  for line in "${steps[@]}"; do
    # shellcheck disable=SC2086  # a line is a name, a function and its arguments
    step $line
  done
}

local_build() {
  require_root
  exclusive
  build_missing
  say "everything is built: $cache"
}
