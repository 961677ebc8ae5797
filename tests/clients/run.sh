#!/usr/bin/env bash
# Is /openapi.json valid, do the clients work that are generated from it, and the worker of
# docs/consuming.md?
set -euo pipefail
cd "$(dirname "$0")/../.."

. tests/clients/lib.sh

python_tools "$tools/venv" "$here/requirements.txt"
if ! cmp -s "$here/package.json" "$tools/node/installed.json"; then
    rm -rf "$tools/node"
    mkdir -p "$tools/node"
    cp "$here/package.json" "$tools/node"
    npm install --prefix "$tools/node" --no-audit --no-fund --silent
    cp "$here/package.json" "$tools/node/installed.json"
fi

port=$(free_port)
url=http://127.0.0.1:$port
serve "$tools/server.log" "$url/readiness" FASTPUBSUB_API_PORT="$port"

curl -sf "$url/openapi.json" -o "$tools/openapi.json"
"$tools/venv/bin/openapi-spec-validator" "$tools/openapi.json"

echo "class_overrides: {}
project_name_override: fastpubsub_client
package_name_override: fastpubsub_client" >"$tools/config.yml"
rm -rf "$tools/python"
PATH=$tools/venv/bin:$PATH "$tools/venv/bin/openapi-python-client" generate \
    --path "$tools/openapi.json" --config "$tools/config.yml" --meta none \
    --output-path "$tools/python/fastpubsub_client" --fail-on-warning
PYTHONPATH=$tools/python "$tools/venv/bin/python" "$here/use_client.py" "$url"

"$tools/venv/bin/python" "$here/run_worker.py" "$url"

cp "$here/program.ts" "$here/tsconfig.json" "$tools/node"
"$tools/node/node_modules/.bin/openapi-typescript" "$tools/openapi.json" --output "$tools/node/schema.d.ts"
"$tools/node/node_modules/.bin/tsc" --project "$tools/node"
echo "the generated TypeScript type-checks"
