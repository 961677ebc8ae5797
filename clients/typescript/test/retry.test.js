import assert from "node:assert/strict";
import { before, test } from "node:test";
import { ApiError, Client, ConnectionError } from "fastpubsub-client";
import { Server, fake, lossy, newSubscription, quick } from "./server.js";

let server, direct;
before(async () => {
  server = await Server.start();
  direct = new Client(server.url);
});

async function faked(answer, use) {
  const { url, requests } = await fake(answer);
  await use(quick(url), requests);
}

for (const status of [429, 503]) {
  test(`${status} is tried again, not before the seconds of Retry-After`, async () => {
    const answer = (_request, _body, number) => (number === 1 ? { status, headers: { "Retry-After": "1" } } : { json: { id: "t" } });
    await faked(answer, async (client, requests) => {
      assert.deepEqual(await client.getTopic("t"), { id: "t" });
      assert.equal(requests.length, 2);
      assert.ok(requests[1].at - requests[0].at >= 990);
    });
  });
}

test("Retry-After may be a date", async () => {
  const soon = new Date(Math.ceil(Date.now() / 1000) * 1000 + 1000);
  const answer = (_request, _body, number) => (number === 1 ? { status: 503, headers: { "Retry-After": soon.toUTCString() } } : {});
  await faked(answer, async (client) => {
    await client.getTopic("t");
    assert.ok(Date.now() >= soon.getTime() - 5);
  });
});

test("who is told to come back after all the time of retries gives up at once", async () => {
  await faked(() => ({ status: 503, headers: { "Retry-After": "3600" }, json: { detail: "away" } }), async (client, requests) => {
    await assert.rejects(client.getTopic("t"), { status: 503, detail: "away", retryAfterMs: 3_600_000 });
    assert.equal(requests.length, 1);
  });
});

for (const failure of [{ status: 502 }, { status: 503 }, { status: 504 }, { hangUp: true }]) {
  const name = failure.status ?? "a connection that breaks";

  test(`${name} is tried again where that does no harm`, async () => {
    const answer = (_request, _body, number) => (number < 3 ? failure : { json: { results: [], messages: [], data: [] } });
    const calls = [
      (client) => client.getTopic("t"),
      (client) => client.updateTopic("t", { message_retention_seconds: 1 }),
      (client) => client.deleteTopic("t"),
      (client) => client.publish("t", [{ payload: {} }]),
      (client) => client.pull("t"),
      (client) => client.settle("t", { acks: ["r"] }),
    ];
    await Promise.all(calls.map((call) => faked(answer, async (client, requests) => {
      await call(client);
      assert.equal(requests.length, 3);
      assert.equal(new Set(requests.map(({ headers }) => headers["idempotency-key"])).size, 1);
      assert.equal(new Set(requests.map(({ body }) => body)).size, 1);
    })));
  });

  test(`${name} is not tried again where it may have been done`, async () => {
    const calls = [
      (client) => client.createTopic({ id: "t" }),
      (client) => client.publish("t", [{ payload: {} }], { idempotencyKey: false }),
      (client) => client.pull("t", { auto_ack: true }),
      (client) => client.reprocessDeadLetters("t", { all: true }),
      (client) => client.request("POST", "/transactions", { body: {} }),
      (client) => client.getTopic("t", { retryMs: 0 }),
    ];
    await Promise.all(calls.map((call) => faked(() => failure, async (client, requests) => {
      await assert.rejects(call(client), failure.hangUp ? ConnectionError : ApiError);
      assert.equal(requests.length, 1);
    })));
  });
}

test("an answer that does not come in time is no answer", async () => {
  await faked((_request, _body, number) => number === 1 ? new Promise(() => {}) : {}, async (client, requests) => {
    await client.getTopic("t", { timeoutMs: 50 });
    assert.equal(requests.length, 2);
  });
  await faked(() => new Promise(() => {}), async (client) => {
    await assert.rejects(client.createTopic({ id: "t" }, { timeoutMs: 50 }), {
      name: "ConnectionError",
      message: "POST /topics: no answer within 50 ms",
    });
  });
});

test("a signal that aborts ends the wait for the next try", async () => {
  await faked(() => ({ status: 503, headers: { "Retry-After": "3" } }), async (client) => {
    const leave = new AbortController();
    const call = client.getTopic("t", { signal: leave.signal });
    const started = performance.now();
    setTimeout(() => leave.abort(new Error("enough")), 50);
    await assert.rejects(call, { message: "enough" });
    assert.ok(performance.now() - started < 1_500);
  });
});

test("an error that is no JSON is told all the same", async () => {
  await faked(() => ({ status: 502, headers: { "Content-Type": "text/html" }, json: "bad gateway" }), async (client) => {
    await assert.rejects(client.createTopic({ id: "t" }), { status: 502, detail: '"bad gateway"' });
  });
});

test("no connection is an error that says why", async () => {
  const client = new Client("http://127.0.0.1:1", undefined, { retryMs: 0 });
  await assert.rejects(client.getTopic("t"), { name: "ConnectionError", message: /GET \/topics\/t: .*(ECONNREFUSED|bad port)/ });
});

test("of publishes whose answers are lost nothing is lost and nothing is published twice", async () => {
  const id = await newSubscription(direct);
  const proxy = await lossy(server.url, (_request, number) => number % 2 === 1);
  const client = quick(proxy.url);
  const publisher = client.publisher(id, { maxMessages: 10 });
  const ids = await Promise.all([
    ...Array.from({ length: 50 }, (_, n) => publisher.publish({ payload: { n } })),
    client.publish(id, [{ payload: { n: 50 } }]).then(({ message_ids }) => message_ids[0]),
  ]);

  const { messages } = await direct.pull(id, { max_messages: 1000, auto_ack: true });
  assert.ok(proxy.requests.length >= 12, "answers were lost");
  assert.deepEqual(messages.map(({ payload }) => payload.n).sort((a, b) => a - b), Array.from({ length: 51 }, (_, n) => n));
  assert.deepEqual(messages.map(({ id }) => id).sort(), ids.sort());
});

test("what is in the answer of a pull that was lost comes again", async () => {
  const id = await newSubscription(direct);
  await direct.publish(id, [{ payload: { n: 1 } }]);
  const proxy = await lossy(server.url, (_request, number) => number === 1);
  const { messages } = await quick(proxy.url).pull(id, { wait_seconds: 10, ack_deadline_seconds: 1 });
  assert.deepEqual(messages.map(({ payload, delivery_attempts }) => [payload.n, delivery_attempts]), [[1, 2]]);
});
