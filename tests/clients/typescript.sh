#!/usr/bin/env bash
# Does the package of clients/typescript work as npm installs it: its types, its README, and against servers
# that are killed?
set -euo pipefail
cd "$(dirname "$0")/../.."

. tests/clients/lib.sh
export FASTPUBSUB_BIN=$server
package=clients/typescript
place=target/clients/typescript

npm ci --prefix "$package" --no-audit --no-fund --silent
mkdir -p "$place"
rm -rf "$place"/{test,types,node_modules/fastpubsub-client,*.tgz}
(cd "$package" && npm pack --silent --pack-destination "../../$place") >"$place/packed.txt"
cp -r "$package/test" "$place"
cp "$package/test/package.json" "$place"
cd "$place"
npm install --no-audit --no-fund --no-package-lock --no-save --silent "./$(tail -1 packed.txt)"

strict=(--noEmit --strict --exactOptionalPropertyTypes --noUncheckedIndexedAccess --target es2022)
tsc=node_modules/.bin/tsc
"$tsc" "${strict[@]}" --module nodenext --lib es2022 --types node test/types.ts
"$tsc" "${strict[@]}" --module esnext --moduleResolution bundler --lib es2022,dom --typeRoots none test/types.ts
echo "the types hold in Node and in browsers"

node --test --test-concurrency=2 test/*.test.js
echo "the TypeScript client works"
