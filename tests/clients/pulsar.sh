#!/usr/bin/env bash
# Do programs work that were written for Pulsar Proxy, which has no client library: with requests and websockets, with
# curl, and in a browser; at the mount, and where fastpubsub stands in for it?
set -euo pipefail
cd "$(dirname "$0")/../.."

. tests/clients/lib.sh

python_tools "$tools/pulsar" "$here/pulsar.txt"

# a page: it prints what it got, once the last message has come
in_browser() {
    local url=$1 shown
    for n in 1 2 3; do
        curl -sf -H 'Content-Type: application/json' -d "{\"topic\": \"page\", \"payload\": {\"n\": $n}}" \
            "$url/api/v1/messages" >/dev/null
    done
    (
        sleep 3
        curl -sf -H 'Content-Type: application/json' -d '{"topic": "page", "payload": {"n": 4}}' \
            "$url/api/v1/messages" >/dev/null
    ) &
    shown=$(timeout 60 chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage \
        --user-data-dir="$(mktemp -d)" --timeout=30000 --dump-dom \
        "file://$here/pulsar.html?root=$url" 2>"$tools/chromium.log")
    wait $!
    grep -q 'closed 1005 after subscribed 1 2 3 4' <<<"$shown" || { echo "$shown" >&2; exit 1; }
    echo "the page works at $url"
}

port=$(free_port)
url=http://127.0.0.1:$port
serve "$tools/pulsar.log" "$url/readiness" FASTPUBSUB_API_PORT="$port"
"$tools/pulsar/bin/python" "$here/pulsar.py" "$url/pulsar"
in_browser "$url/pulsar"

# in its place, with its own variables, of which some have a prefix in later versions
cd "$here"
port=$(free_port)
url=http://127.0.0.1:$port
serve "$tools/pulsar-drop-in.log" "$url/health" FASTPUBSUB_DROP_IN=pulsar FASTPUBSUB_API_PORT="$(free_port)" \
    HTTP_PORT="$port" APP_NAME=proxy HOT_TIER_RETENTION=600 PULSAR_MAX_MESSAGES_PER_TOPIC=1000 \
    STORAGE_BACKEND=memory VALKEY_URL=redis://valkey:6379
"$tools/pulsar/bin/python" "$here/pulsar.py" "$url"
in_browser "$url"
grep -q 'without effect.*FASTPUBSUB_PULSAR_APP_NAME, FASTPUBSUB_PULSAR_STORAGE_BACKEND, FASTPUBSUB_PULSAR_VALKEY_URL' \
    "$tools/pulsar-drop-in.log"
