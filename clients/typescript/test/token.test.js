import assert from "node:assert/strict";
import { test } from "node:test";
import { Client } from "fastpubsub-client";
import { Server, fake, quick } from "./server.js";

test("a client that logs in gets another token when its token ends", async (t) => {
  const server = await Server.start({ FASTPUBSUB_AUTH_ENABLED: "true", FASTPUBSUB_AUTH_SECRET_KEY: "k".repeat(32) });
  const created = server.run("create_client", "app", "*", "--with-api-key");
  const told = (name) => new RegExp(`${name}"?[=:]\\s*"?([\\w-]+)`, "i").exec(created)?.[1];
  const [clientId, clientSecret, apiKey] = ["client_?id", "secret", "api_?key"].map(told);
  const client = new Client(server.url, { clientId, clientSecret });
  const byKey = new Client(server.url, { apiKey });

  await t.test("by id and secret, and by key", async () => {
    await client.createTopic({ id: "t" });
    await byKey.createSubscription({ id: "s", topic_id: "t" });
  });

  await t.test("whose change ended its tokens, at once and without an error", async () => {
    const before = await client.request("GET", `/clients/${clientId}`);
    // whoever changed it, its token is over
    await byKey.request("PUT", `/clients/${clientId}`, { body: { name: "renamed", scopes: before.scopes, is_active: true } });
    const ids = await Promise.all(Array.from({ length: 10 }, () => client.getTopic("t")));
    assert.equal(ids.length, 10);
  });

  await t.test("with fewer scopes where it asks for fewer", async () => {
    const reader = new Client(server.url, { clientId, clientSecret, scope: "topics:read" });
    assert.equal((await reader.getTopic("t")).id, "t");
    await assert.rejects(reader.createTopic({ id: "u" }), { status: 403 });
  });

  await t.test("and a wrong secret is refused with its reason", async () => {
    const wrong = new Client(server.url, { clientId, clientSecret: "0".repeat(32) });
    await assert.rejects(wrong.getTopic("t"), { status: 401, message: /401: .+/ });
  });

  await t.test("a token of one's own is asked for again", async () => {
    const body = { client_id: clientId, client_secret: clientSecret };
    const { access_token } = await new Client(server.url).request("POST", "/oauth/token", { body });
    const tokens = ["wrong", access_token];
    const own = new Client(server.url, { token: () => tokens.shift() });
    assert.equal((await own.getTopic("t")).id, "t");
    await assert.rejects(new Client(server.url, { token: "wrong" }).getTopic("t"), { status: 401 });
  });
});

/** Takes the last token only. */
async function issuer(expires_in, refuse = () => false) {
  let issued = 0;
  const server = await fake((request) => {
    if (request.url === "/oauth/token") return { json: { access_token: `token-${++issued}`, expires_in } };
    const good = request.headers.authorization === `Bearer token-${issued}` && !refuse();
    return good ? { json: {} } : { status: 401, json: { detail: "expired" } };
  });
  return { ...server, issued: () => issued };
}

test("calls at once share one login, and its token until a minute before its end", async () => {
  const server = await issuer(3600);
  const client = quick(server.url, { clientId: "a&b", clientSecret: "s=c" });
  await Promise.all(Array.from({ length: 10 }, () => client.getTopic("t")));
  await client.getTopic("t");
  assert.equal(server.issued(), 1);
  assert.equal(server.requests[0].body, "grant_type=client_credentials&client_id=a%26b&client_secret=s%3Dc");
});

test("a token is replaced ahead of its end, so no request is refused", async () => {
  const server = await issuer(0.4);
  const client = quick(server.url, { clientId: "c", clientSecret: "s" });
  await client.getTopic("t");
  await new Promise((resolve) => setTimeout(resolve, 210)); // half of its life
  await client.getTopic("t");
  assert.equal(server.issued(), 2);
  assert.equal(server.requests.length, 4);
});

test("a server that refuses new tokens, too, is asked once more and no oftener", async () => {
  const server = await issuer(3600, () => true);
  const client = quick(server.url, { clientId: "c", clientSecret: "s" });
  await assert.rejects(client.getTopic("t"), { status: 401, detail: "expired" });
  assert.equal(server.issued(), 2);
  assert.equal(server.requests.length, 4);
});

test("who gives up does not spoil the login of others", async () => {
  const server = await fake(async (request) => {
    await new Promise((resolve) => setTimeout(resolve, 50));
    return { json: request.url === "/oauth/token" ? { access_token: "t", expires_in: 60 } : {} };
  });
  const client = quick(server.url, { clientId: "c", clientSecret: "s" });
  const leave = new AbortController();
  const first = client.getTopic("t", { signal: leave.signal });
  const second = client.getTopic("t");
  leave.abort(new Error("enough"));
  await assert.rejects(first, { message: "enough" });
  await second;
});
