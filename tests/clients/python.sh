#!/usr/bin/env bash
# Does clients/python build, and does the built wheel pass its types, lints and tests against a live server?
set -euo pipefail
cd "$(dirname "$0")/../.."

. tests/clients/lib.sh

python_tools "$tools/package" "$here/python.txt"
python=$tools/package/bin/python

# from a copy: the sources get nothing of it
place=$tools/package-place
rm -rf "$place"
cp -r clients/python "$place"
cd "$place"
"$python" -m build --outdir "$place/dist" .
"$python" -m pip install --quiet --force-reinstall --no-deps dist/*.whl

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy fastpubsub_client tests
# what was installed is what is tested
rm -rf fastpubsub_client
FASTPUBSUB_BIN=$server "$python" -m pytest "$@"
echo "the Python client works"
