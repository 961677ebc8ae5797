// Servers of the tests: the binary FASTPUBSUB_BIN over a private Postgres each, and fakes. All end with the file.
import { execFileSync, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { Client } from "fastpubsub-client";

const opened = [];
after(() => Promise.all(opened.map((server) => server.stop())));

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Ask again until it is so. */
export async function until(ask, what = ask) {
  for (const end = Date.now() + 30_000; ; ) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`it did not come to be: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

export class Server {
  static async start(env = {}) {
    const folder = mkdtempSync(join(tmpdir(), "fastpubsub-client-"));
    // Root's Postgres runs as user postgres.
    if (process.getuid() === 0) execFileSync("chown", ["postgres", folder]);
    const server = new Server();
    opened.push(server);
    server.folder = folder;
    server.port = await freePort();
    server.url = `http://127.0.0.1:${server.port}`;
    const { FASTPUBSUB_BIN: _, ...inherited } = process.env;
    server.env = {
      ...inherited,
      FASTPUBSUB_DATA_DIR: join(folder, "data"),
      FASTPUBSUB_API_HOST: "127.0.0.1",
      FASTPUBSUB_API_PORT: String(server.port),
      FASTPUBSUB_LOG_LEVEL: "warning",
      ...env,
    };
    await server.begin();
    return server;
  }

  async begin() {
    this.process = spawn(process.env.FASTPUBSUB_BIN, ["server"], { env: this.env, stdio: "ignore" });
    this.ended = new Promise((resolve) => this.process.once("exit", resolve));
    await until(() => fetch(`${this.url}/readiness`).then(({ ok }) => ok, () => false), "the server is ready");
  }

  /** kill -9, and again from what is on disk. */
  async crash() {
    this.process.kill("SIGKILL");
    await this.ended;
    await this.begin();
  }

  async stop() {
    this.process.kill("SIGTERM");
    await this.ended;
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** A command of the binary. */
  run(...command) {
    return execFileSync(process.env.FASTPUBSUB_BIN, command, { env: this.env, encoding: "utf8" });
  }
}

/** A topic and a subscription of one id that nobody else has. */
export async function newSubscription(client, settings = {}) {
  const id = `t-${randomUUID()}`;
  await client.createTopic({ id });
  await client.createSubscription({ id, topic_id: id, ...settings });
  return id;
}

export const metrics = (client, id) => client.request("GET", `/subscriptions/${id}/metrics`);

/** A server of one's own words: each request gets what `answer(request, body, number)` says. */
export async function fake(answer) {
  const requests = [];
  const server = http.createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    requests.push({ method: request.method, url: request.url, headers: request.headers, body, at: performance.now() });
    const { status = 200, headers = {}, json = {}, hangUp } = (await answer(request, body, requests.length)) ?? {};
    if (hangUp) return request.socket.destroy();
    response.writeHead(status, { "Content-Type": "application/json", ...headers }).end(JSON.stringify(json));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  opened.push({ stop: () => (server.closeAllConnections(), server.close()) });
  return { url: `http://127.0.0.1:${server.address().port}`, requests };
}

/** In front of a server; `lose(request, number)` says whose answers never arrive. */
export function lossy(url, lose) {
  return fake(async (request, body, number) => {
    const answer = await fetch(url + request.url, {
      method: request.method,
      headers: { ...request.headers, connection: "keep-alive" },
      body: request.method === "GET" ? undefined : body,
    });
    const text = await answer.text();
    if (lose(request, number)) return { hangUp: true };
    return { status: answer.status, json: text === "" ? undefined : JSON.parse(text) };
  });
}

export const quick = (url, credentials, options) => new Client(url, credentials, { timeoutMs: 5_000, retryMs: 5_000, ...options });
