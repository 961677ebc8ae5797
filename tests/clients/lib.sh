# What the tests with other people's clients share. The server is the built binary over a private Postgres.
# They run in the folder of the project.

here=$PWD/tests/clients
tools=$PWD/target/clients
mkdir -p "$tools"
server=${FASTPUBSUB_BIN:-$PWD/target/debug/fastpubsub}

# python_tools FOLDER LIST: a virtual environment with what LIST says, anew whenever that changes
python_tools() {
    if ! cmp -s "$2" "$1/installed.txt"; then
        rm -rf "$1"
        python3 -m venv "$1"
        "$1/bin/pip" install --quiet --requirement "$2"
        cp "$2" "$1/installed.txt"
    fi
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# serve LOG URL [NAME=VALUE...]: start a server, and wait until URL answers; it ends with the script
serve() {
    local log=$1 url=$2 data
    shift 2
    # Root's Postgres runs as user postgres, who may not enter every home.
    data=$(mktemp -d)
    [ "$(id -u)" != 0 ] || chown postgres "$data"
    env FASTPUBSUB_DATA_DIR="$data/data" FASTPUBSUB_API_HOST=127.0.0.1 "$@" "$server" server >"$log" 2>&1 &
    servers+=("$!") folders+=("$data")
    for _ in $(seq 300); do
        curl -sf "$url" >/dev/null && return
        kill -0 "${servers[-1]}" || { cat "$log" >&2; exit 1; }
        sleep 0.2
    done
    cat "$log" >&2
    exit 1
}

servers=() folders=()
stop() {
    for pid in "${servers[@]}"; do
        kill "$pid" && wait "$pid" || true
    done
    rm -rf "${folders[@]}"
}
trap stop EXIT
