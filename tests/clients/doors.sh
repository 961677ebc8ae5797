#!/usr/bin/env bash
# Do programs work that were written for the systems whose doors there are, with their published clients:
# at the mount, and where fastpubsub stands in for the system, under the system's own variables?
set -euo pipefail
cd "$(dirname "$0")/../.."

. tests/clients/lib.sh

python_tools "$tools/pyqueue" "$here/pyqueue.txt"
# sends messages under the older name
python_tools "$tools/pyqueue-old" "$here/pyqueue-old.txt"

keys='{"operator-key": {"description": "operator", "queues": {"*": ["READ", "WRITE", "DELETE", "MANAGE"]}}}'

port=$(free_port)
url=http://127.0.0.1:$port
serve "$tools/mounted.log" "$url/readiness" FASTPUBSUB_API_PORT="$port" \
    FASTPUBSUB_PYQUEUE_API_KEYS_JSON="$keys"
"$tools/pyqueue/bin/python" "$here/use_pyqueue.py" "$url/pyqueue/"
"$tools/pyqueue-old/bin/python" "$here/use_pyqueue.py" "$url/pyqueue"

# in its place: its own variables, and its keys in the file where it looks for them
place=$tools/pyqueue-place
rm -rf "$place"
mkdir -p "$place/config"
echo "$keys" >"$place/config/api_keys.json"
cd "$place"
port=$(free_port)
url=http://127.0.0.1:$port
serve "$tools/drop-in.log" "$url/health" FASTPUBSUB_DROP_IN=pyqueue FASTPUBSUB_API_PORT="$(free_port)" \
    HOST=127.0.0.1 PORT="$port" STORAGE_BACKEND=sqlite SQLITE_DB_PATH=queue.db
"$tools/pyqueue/bin/python" "$here/use_pyqueue.py" "$url"
grep -q 'without effect.*FASTPUBSUB_PYQUEUE_SQLITE_DB_PATH, FASTPUBSUB_PYQUEUE_STORAGE_BACKEND' "$tools/drop-in.log"

# the Message Broker has no client: its README has requests
cd "$here"
python_tools "$tools/broker" "$here/broker.txt"
port=$(free_port)
url=http://127.0.0.1:$port
serve "$tools/broker.log" "$url/readiness" FASTPUBSUB_API_PORT="$port" \
    FASTPUBSUB_BROKER_API_KEY=sesame FASTPUBSUB_BROKER_MAX_RETRIES=2 FASTPUBSUB_BROKER_BACKOFF_BASE_MS=100
"$tools/broker/bin/python" "$here/use_broker.py" "$url/broker" sesame

# receivers of pushed messages, as docs/push.md has them
python_tools "$tools/push" "$here/push.txt"
if ! cmp -s "$here/push/package.json" "$tools/push-node/installed.json"; then
    rm -rf "$tools/push-node"
    mkdir -p "$tools/push-node"
    cp "$here/push/package.json" "$tools/push-node"
    npm install --prefix "$tools/push-node" --no-audit --no-fund --silent
    cp "$here/push/package.json" "$tools/push-node/installed.json"
fi
"$tools/push/bin/python" "$here/run_push.py" python "$tools/push" "$url"
"$tools/push/bin/python" "$here/run_push.py" typescript "$tools/push-node" "$url"

# in its place: the example .env of its README, whose secret is one of development
place=$tools/broker-place
rm -rf "$place"
mkdir -p "$place"
cd "$place"
port=$(free_port)
url=http://127.0.0.1:$port
serve "$tools/broker-drop-in.log" "$url/health" FASTPUBSUB_DROP_IN=broker FASTPUBSUB_API_PORT="$(free_port)" \
    APP_ENV=development APP_HOST=127.0.0.1 APP_PORT="$port" AUTH_MODE=apikey API_KEY=supersecretkey \
    JWT_SECRET=change_me VISIBILITY_TIMEOUT_SEC=30 MAX_RETRIES=2 BACKOFF_STRATEGY=exponential \
    BACKOFF_BASE_MS=100 DLQ_SUFFIX=.DLQ CORS_ORIGINS='*' RATE_LIMIT=100000 STORE_BACKEND=redis \
    REDIS_URL=redis://redis:6379/0
"$tools/broker/bin/python" "$here/use_broker.py" "$url" supersecretkey
grep -q 'without effect.*FASTPUBSUB_BROKER_REDIS_URL, FASTPUBSUB_BROKER_STORE_BACKEND' "$tools/broker-drop-in.log"

# streams: the clients of docs/streaming.md, and the Python one behind nginx, where there is one
cd "$here/../.."
python_tools "$tools/streaming" "$here/streaming.txt"
if ! cmp -s "$here/streaming/package.json" "$tools/streaming-node/package.json"; then
    rm -rf "$tools/streaming-node"
    mkdir -p "$tools/streaming-node"
    cp "$here/streaming/package.json" "$tools/streaming-node"
    npm install --prefix "$tools/streaming-node" --no-audit --no-fund --silent
fi
port=$(free_port)
pages=$(free_port)
url=http://127.0.0.1:$port
serve "$tools/streaming.log" "$url/readiness" FASTPUBSUB_API_PORT="$port" \
    FASTPUBSUB_API_CORS_ORIGINS="http://127.0.0.1:$pages"
"$tools/streaming/bin/python" "$here/run_streaming.py" "$url" "$tools/streaming-node" "$pages"

# and behind nginx, with the settings of the page, where there is one
if ! nginx=$(PATH=$PATH:/usr/sbin command -v nginx); then
    echo "NOT TESTED: docs/streaming.md behind nginx, because there is none" >&2
    exit
fi
place=$tools/nginx
rm -rf "$place"
mkdir -p "$place"
# an API that nobody has used yet
port=$(free_port)
serve "$tools/behind-nginx.log" "http://127.0.0.1:$port/readiness" FASTPUBSUB_API_PORT="$port" \
    FASTPUBSUB_API_CORS_ORIGINS="http://127.0.0.1:$pages"
front=$(free_port)
{
    echo "pid $place/pid; events {} http { access_log off;"
    for kind in client_body proxy fastcgi uwsgi scgi; do
        echo "${kind}_temp_path $place/$kind;"
    done
    sed -n '/^```nginx$/,/^```$/p' docs/streaming.md | grep -v '^```' |
        sed "s/127.0.0.1:8000/127.0.0.1:$port/; s/listen 8080/listen 127.0.0.1:$front/"
    echo "}"
} >"$place/nginx.conf"
"$nginx" -p "$place" -c "$place/nginx.conf" -e "$place/error.log" -g 'daemon off;' &
servers+=("$!")
curl -sf --retry 20 --retry-connrefused --retry-delay 1 "http://127.0.0.1:$front/readiness" >/dev/null
"$tools/streaming/bin/python" "$here/run_streaming.py" "http://127.0.0.1:$front" "$tools/streaming-node" "$pages"
