import assert from "node:assert/strict";
import { before, test } from "node:test";
import { Client } from "fastpubsub-client";
import { Server, fake, newSubscription, quick } from "./server.js";

let server, client;
before(async () => {
  server = await Server.start();
  client = new Client(server.url);
});

/** A server that takes everything, and a publisher of it. */
async function recorded(options, answer = () => ({})) {
  let id = 0;
  const server = await fake(async (_request, body) => {
    const json = { message_ids: JSON.parse(body).messages.map(() => `id-${id++}`), duplicates: [] };
    return { status: 201, json, ...(await answer(json)) };
  });
  const sizes = () => server.requests.map(({ body }) => JSON.parse(body).messages.length);
  return { ...server, sizes, publisher: quick(server.url).publisher("t", options) };
}

test("messages of one moment go in one request, in order, each with its own id", async () => {
  const { publisher, sizes, requests } = await recorded({});
  const ids = await Promise.all([1, 2, 3].map((n) => publisher.publish({ payload: { n } })));
  assert.deepEqual(sizes(), [3]);
  assert.deepEqual(ids, ["id-0", "id-1", "id-2"]);
  assert.deepEqual(JSON.parse(requests[0].body).messages.map(({ payload }) => payload.n), [1, 2, 3]);
});

test("a request has no more messages, and no more bytes, than it may", async () => {
  const byCount = await recorded({ maxMessages: 4 });
  await Promise.all(Array.from({ length: 10 }, (_, n) => byCount.publisher.publish({ payload: { n } })));
  assert.deepEqual(byCount.sizes(), [4, 4, 2]);

  const byBytes = await recorded({ maxBytes: 100 });
  await Promise.all(["é".repeat(30), "é".repeat(30), "é".repeat(200), "a"].map((text) => byBytes.publisher.publish({ payload: { text } })));
  assert.deepEqual(byBytes.sizes(), [1, 1, 1, 1]);
});

test("a full request does not wait for others, and flush and close wait for nobody", async () => {
  const { publisher, sizes } = await recorded({ maxMessages: 2, maxDelayMs: 60_000 });
  await Promise.all([publisher.publish({ payload: {} }), publisher.publish({ payload: {} })]);
  void publisher.publish({ payload: {} });
  await publisher.flush();
  assert.deepEqual(sizes(), [2, 1]);
  void publisher.publish({ payload: {} });
  await publisher.close();
  assert.deepEqual(sizes(), [2, 1, 1]);
  await assert.rejects(publisher.publish({ payload: {} }), { message: "the publisher is closed" });
});

test("each request has a key of its own, and what its owner changes later does not count", async () => {
  const { publisher, requests } = await recorded({ maxMessages: 1 });
  const message = { payload: { n: 1 } };
  const first = publisher.publish(message);
  message.payload.n = 2;
  await Promise.all([first, publisher.publish(message)]);
  assert.equal(new Set(requests.map(({ headers }) => headers["idempotency-key"])).size, 2);
  assert.deepEqual(requests.map(({ body }) => JSON.parse(body).messages[0].payload.n), [1, 2]);
});

test("ready waits while there are too many on their way", async () => {
  let open;
  const gate = new Promise((resolve) => (open = resolve));
  const { publisher } = await recorded({ maxPending: 2 }, () => gate);
  await publisher.ready();
  const published = [publisher.publish({ payload: {} }), publisher.publish({ payload: {} })];
  let ready = false;
  const waiting = publisher.ready().then(() => (ready = true));
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(ready, false);
  open({});
  await Promise.all(published);
  await waiting;
});

test("a bad message fails alone, with its own fault", async () => {
  const id = await newSubscription(client);
  const publisher = client.publisher(id);
  const large = { text: "x".repeat(2 * 1024 * 1024) };
  const messages = [
    { payload: { n: 0 } }, { payload: { n: 1 }, priority: 10 }, { payload: { n: 2 } }, { payload: large },
    { payload: { n: 4 } }, { payload: { n: 5 }, ordering_key: "" }, { payload: [] }, { payload: { n: 7 } },
  ];

  const results = await Promise.allSettled(messages.map((message) => publisher.publish(message)));

  assert.deepEqual(results.map(({ status, reason }) => (status === "fulfilled" ? "ok" : `${reason.status} ${reason.path}`)), [
    "ok", "422 body.messages.0.priority", "ok", "413 undefined",
    "ok", "422 body.messages.0.ordering_key", "422 body.messages.0.payload", "ok",
  ]);
  const { messages: stored } = await client.pull(id, { max_messages: 100, auto_ack: true });
  assert.deepEqual(stored.map(({ payload }) => payload.n).sort(), [0, 2, 4, 7]);
});

test("the good ones need one more request, however many there are", async () => {
  const refuse = ({ message_ids }) => {
    const detail = [{ type: "value_error", loc: ["body", "messages", 41, "priority"], msg: "no" }];
    return message_ids.length === 100 || message_ids.length === 1 ? { status: 422, json: { detail } } : {};
  };
  const { publisher, sizes } = await recorded({}, refuse);
  const results = await Promise.allSettled(Array.from({ length: 100 }, (_, n) => publisher.publish({ payload: { n } })));
  assert.deepEqual(results.flatMap(({ status }, n) => (status === "rejected" ? [n] : [])), [41]);
  assert.deepEqual(sizes(), [100, 99, 1]);
});

test("one that nobody can publish fails with the others, and the publisher goes on", async () => {
  const publisher = client.publisher("nowhere");
  const results = await Promise.allSettled([publisher.publish({ payload: {} }), publisher.publish({ payload: {} })]);
  assert.deepEqual(results.map(({ reason }) => reason.status), [404, 404]);
  await client.createTopic({ id: "nowhere" });
  assert.match(await publisher.publish({ payload: {} }), /^[0-9a-f-]{36}$/);
});

test("of a server that is killed in the midst of publishes nothing is lost and nothing is published twice", async (t) => {
  const server = await Server.start();
  let killing = true;
  t.after(() => (killing = false));
  const client = new Client(server.url);
  const id = await newSubscription(client);
  const publisher = client.publisher(id, { maxMessages: 20, maxDelayMs: 1, maxPending: 200 });
  const published = [];
  const publish = async () => {
    for (let n = 0; killing; n++) {
      await publisher.ready();
      published.push(publisher.publish({ payload: { n } }));
    }
  };
  const publishing = publish();
  for (let kills = 0; kills < 6; kills++) {
    const before = published.length;
    while (published.length < before + 1000) await Promise.race([published.at(-1), new Promise(setImmediate)]);
    await server.crash();
  }
  killing = false;
  await publishing;
  await publisher.close();

  const ids = await Promise.all(published);
  const pulled = [];
  for (let batch; (batch = (await client.pull(id, { max_messages: 1000, auto_ack: true })).messages).length > 0; ) {
    pulled.push(...batch);
  }
  assert.ok(ids.length >= 6000);
  assert.equal(pulled.length, ids.length);
  assert.deepEqual(new Set(pulled.map(({ payload }) => payload.n)).size, ids.length);
  assert.deepEqual(new Set(pulled.map(({ id }) => id)), new Set(ids));
});
