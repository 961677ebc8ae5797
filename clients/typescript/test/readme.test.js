// The examples of the README that npm has installed: they compile, run in order and print what it says.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Client } from "fastpubsub-client";
import { Server, metrics, until } from "./server.js";

const here = fileURLToPath(new URL(".", import.meta.url));
const readme = readFileSync(new URL("../README.md", import.meta.resolve("fastpubsub-client")), "utf8");
const examples = [...readme.matchAll(/^```ts\n(.*?)^```(?:\n```text\n(.*?)^```)?/gms)].map(([, code, printed = ""]) => ({ code, printed }));
const folder = mkdtempSync(join(here, "readme-"));

let server, client;
before(async () => {
  server = await Server.start();
  client = new Client(server.url);
  mkdirSync(folder, { recursive: true });
  examples.forEach(({ code }, n) => writeFileSync(join(folder, `${n}.ts`), code.replaceAll("http://localhost:8000", server.url)));
});
after(() => rmSync(folder, { recursive: true }));

test("they compile, as strictly as can be", async () => {
  const options = { strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, target: "es2022", module: "nodenext" };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions: options }));
  await promisify(execFile)(process.execPath, [join(here, "../node_modules/typescript/bin/tsc"), "--project", folder])
    .catch(({ stdout }) => assert.fail(stdout));
});

for (const [n, { code, printed }] of examples.entries()) {
  test(`number ${n + 1} prints what it says`, async () => {
    const child = spawn(process.execPath, [join(folder, `${n}.js`)], { stdio: ["ignore", "pipe", "inherit"] });
    const ended = new Promise((resolve) => child.once("exit", resolve));
    let text = "";
    child.stdout.on("data", (data) => (text += data));
    if (code.includes("client.worker")) {
      await until(async () => {
        const { available, delivered, scheduled } = await metrics(client, "billing");
        return available + delivered + scheduled === 0;
      });
      child.kill("SIGTERM");
    }
    assert.equal(await ended, 0);
    assert.equal(text, printed);
  });
}
