#!/usr/bin/env bash
# Is /openapi.json valid, do the clients work that are generated from it, and the worker of
# docs/consuming.md? The server is the built binary over a private Postgres.
set -euo pipefail
cd "$(dirname "$0")/../.."

here=tests/clients
tools=target/clients
server=${FASTPUBSUB_BIN:-target/debug/fastpubsub}

# the tools, anew whenever a version changes
for list in requirements.txt package.json; do
    if ! cmp -s "$here/$list" "$tools/installed/$list"; then
        mkdir -p "$tools/installed"
        case $list in
            requirements.txt)
                rm -rf "$tools/venv"
                python3 -m venv "$tools/venv"
                "$tools/venv/bin/pip" install --quiet --requirement "$here/$list"
                ;;
            package.json)
                rm -rf "$tools/node"
                mkdir -p "$tools/node"
                cp "$here/$list" "$tools/node"
                npm install --prefix "$tools/node" --no-audit --no-fund --silent
                ;;
        esac
        cp "$here/$list" "$tools/installed/$list"
    fi
done

# Root's Postgres runs as user postgres, who may not enter every home.
data=$(mktemp -d)
[ "$(id -u)" != 0 ] || chown postgres "$data"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
url=http://127.0.0.1:$port
FASTPUBSUB_DATA_DIR=$data/data "$server" server --api-host 127.0.0.1 --api-port "$port" \
    >"$tools/server.log" 2>&1 &
pid=$!
trap 'kill "$pid"; wait "$pid" || true; rm -rf "$data"' EXIT
for _ in $(seq 300); do
    curl -sf "$url/readiness" >/dev/null && break
    kill -0 "$pid" || { cat "$tools/server.log" >&2; exit 1; }
    sleep 0.2
done

curl -sf "$url/openapi.json" -o "$tools/openapi.json"
"$tools/venv/bin/openapi-spec-validator" "$tools/openapi.json"

echo "class_overrides: {}
project_name_override: fastpubsub_client
package_name_override: fastpubsub_client" >"$tools/config.yml"
rm -rf "$tools/python"
PATH=$PWD/$tools/venv/bin:$PATH "$tools/venv/bin/openapi-python-client" generate \
    --path "$tools/openapi.json" --config "$tools/config.yml" --meta none \
    --output-path "$tools/python/fastpubsub_client" --fail-on-warning
PYTHONPATH=$tools/python "$tools/venv/bin/python" "$here/use_client.py" "$url"

"$tools/venv/bin/python" "$here/run_worker.py" "$url"

cp "$here/program.ts" "$here/tsconfig.json" "$tools/node"
"$tools/node/node_modules/.bin/openapi-typescript" "$tools/openapi.json" --output "$tools/node/schema.d.ts"
"$tools/node/node_modules/.bin/tsc" --project "$tools/node"
echo "the generated TypeScript type-checks"
