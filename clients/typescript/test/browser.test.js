// The package in a page of another origin, where there is a chromium.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Server } from "./server.js";

function browser() {
  for (const name of ["chromium", "google-chrome"]) {
    try {
      return execFileSync("which", [name], { encoding: "utf8" }).trim();
    } catch {
      continue;
    }
  }
}

const page = (url) => `<!doctype html><script type="module">
  import { Client } from "/dist/index.js";
  const told = [];
  try {
    const client = new Client("${url}");
    await client.createTopic({ id: "t" });
    await client.createSubscription({ id: "s", topic_id: "t" });
    const publisher = client.publisher("t");
    await Promise.all([1, 2, 3].map((n) => publisher.publish({ payload: { n } })));
    for await (const message of client.stream("s", { maxInFlight: 1 })) {
      told.push("streamed " + message.payload.n, (await client.ack(message)).status);
      break;
    }
    const worker = client.worker("s", ({ payload }) => {
      told.push("handled " + payload.n);
      if (payload.n === 3) void worker.stop();
    });
    await worker.finished;
    await client.getTopic("nope");
  } catch (error) {
    told.push(error.name + " " + error.message);
  }
  await fetch("/told", { method: "POST", body: JSON.stringify(told) });
</script>`;

test("it works in a browser", { skip: browser() === undefined && "there is no chromium" }, async (t) => {
  const server = await Server.start({ FASTPUBSUB_API_CORS_ORIGINS: "*" });
  let tell;
  const told = new Promise((resolve) => (tell = resolve));
  const pages = http.createServer(async (request, response) => {
    if (request.url === "/told") {
      let body = "";
      for await (const chunk of request) body += chunk;
      tell(JSON.parse(body));
      return response.end();
    }
    const isScript = request.url.startsWith("/dist/");
    response.setHeader("Content-Type", isScript ? "text/javascript" : "text/html");
    const file = isScript && new URL(`..${request.url}`, import.meta.resolve("fastpubsub-client"));
    response.end(isScript ? readFileSync(file) : page(server.url));
  });
  await new Promise((resolve) => pages.listen(0, "127.0.0.1", resolve));
  t.after(() => (pages.closeAllConnections(), pages.close()));

  const profile = mkdtempSync(join(tmpdir(), "fastpubsub-client-"));
  const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", `--user-data-dir=${profile}`];
  const running = spawn(browser(), [...flags, `http://127.0.0.1:${pages.address().port}/`], { stdio: "ignore" });
  const ended = new Promise((resolve) => running.once("exit", resolve));
  t.after(async () => {
    running.kill("SIGKILL");
    await ended;
    rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
  });

  assert.deepEqual(await told, ["streamed 1", "acked", "handled 2", "handled 3", "ApiError 404: Topic not found"]);
});
