import assert from "node:assert/strict";
import http from "node:http";
import { before, test } from "node:test";
import { Client } from "fastpubsub-client";
import { Server, metrics, newSubscription, until } from "./server.js";

let server, client;
before(async () => {
  server = await Server.start();
  client = new Client(server.url);
});

test("messages come as they are published, and no more than may be in flight", async () => {
  const id = await newSubscription(client);
  await client.publish(id, [{ payload: { n: 0 } }, { payload: { n: 1 } }]);
  const seen = [];
  for await (const message of client.stream(id, { maxInFlight: 1, ackDeadlineSeconds: 60, consumerId: "me" })) {
    seen.push(message.payload.n);
    assert.equal((await metrics(client, id)).delivered, 1);
    assert.equal((await client.ack(message)).status, "acked");
    if (message.payload.n === 1) await client.publish(id, [{ payload: { n: 2 } }]);
    if (message.payload.n === 2) break;
  }
  assert.deepEqual(seen, [0, 1, 2]);
});

test("who leaves the loop gives back at once what he has not settled, and it does not count", async () => {
  const id = await newSubscription(client);
  await client.publish(id, [{ payload: {} }, { payload: {} }]);
  for await (const _message of client.stream(id)) break;
  await until(async () => (await metrics(client, id)).delivered === 0);
  const { messages } = await client.pull(id, { wait_seconds: 2 });
  assert.deepEqual(messages.map(({ delivery_attempts }) => delivery_attempts), [1, 1]);
});

test("what comes is acked where that is asked for", async () => {
  const id = await newSubscription(client);
  await client.publish(id, [{ payload: {} }]);
  for await (const _message of client.stream(id, { autoAck: true })) break;
  await until(async () => (await metrics(client, id)).acked === 1);
});

test("a signal ends it, also while nothing comes", async () => {
  const id = await newSubscription(client);
  const leave = new AbortController();
  const next = client.stream(id, { signal: leave.signal }).next();
  await until(async () => /pubsub_open_streams\{kind="sse"\} 1/.test(await client.request("GET", "/metrics")));
  const started = performance.now();
  leave.abort(new Error("enough"));
  await assert.rejects(next, { message: "enough" });
  assert.ok(performance.now() - started < 5_000, "not only when the server gives its next sign of life");
  await until(async () => /pubsub_open_streams\{kind="sse"\} 0/.test(await client.request("GET", "/metrics")));
});

test("one that is refused throws", async () => {
  await assert.rejects(client.stream("nowhere").next(), { status: 404 });
});

test("it comes back when the server was killed", async () => {
  const server = await Server.start();
  const client = new Client(server.url);
  const id = await newSubscription(client);
  await client.publish(id, [{ payload: { n: 0 } }]);
  for await (const message of client.stream(id)) {
    await client.ack(message);
    if (message.payload.n === 1) break;
    await server.crash();
    await client.publish(id, [{ payload: { n: 1 } }]);
  }
});

test("events are read however they are cut, and a token that is over is replaced", async (t) => {
  let connections = 0, tokens = 0;
  const event = (n) => `event: message\r\nid: r${n}\r\ndata: {"payload":{"text":"é${n}"}}\r\n\r\n`;
  const fake = http.createServer(async (request, response) => {
    if (request.url === "/oauth/token") {
      response.setHeader("Content-Type", "application/json");
      return response.end(JSON.stringify({ access_token: `t${++tokens}`, expires_in: 3600 }));
    }
    if (request.headers.authorization === "Bearer t1" && connections === 1) return response.writeHead(401).end();
    connections++;
    for (const byte of Buffer.from(`retry: 1000\n\n: nothing new\n\n${event(connections)}`)) {
      response.write(Buffer.of(byte));
      await new Promise(setImmediate);
    }
    response.end('event: error\ndata: {"detail": "the token is over"}\n\n');
  });
  t.after(() => (fake.closeAllConnections(), fake.close()));
  await new Promise((resolve) => fake.listen(0, "127.0.0.1", resolve));
  const client = new Client(`http://127.0.0.1:${fake.address().port}`, { clientId: "c", clientSecret: "s" });
  const seen = [];
  for await (const { payload } of client.stream("s")) {
    seen.push(payload.text);
    if (seen.length === 2) break;
  }
  assert.deepEqual(seen, ["é1", "é2"]);
  assert.equal(tokens, 2);
});
