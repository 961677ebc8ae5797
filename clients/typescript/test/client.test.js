import assert from "node:assert/strict";
import { before, test } from "node:test";
import { ApiError, Client } from "fastpubsub-client";
import { Server, newSubscription } from "./server.js";

let server, client;
before(async () => {
  server = await Server.start();
  client = new Client(`${server.url}/`);
});

async function all(iterator) {
  const found = [];
  for await (const one of iterator) found.push(one);
  return found;
}

test("topics and subscriptions are created, read, changed, listed and deleted", async () => {
  const id = await newSubscription(client, { filter: { country: ["BR"] } });

  assert.equal((await client.getTopic(id)).id, id);
  assert.equal((await client.updateTopic(id, { message_retention_seconds: 60 })).message_retention_seconds, 60);
  assert.deepEqual((await client.getSubscription(id)).filter, { country: ["BR"] });
  assert.equal((await client.updateSubscription(id, { filter: null, max_in_flight: 5 })).max_in_flight, 5);
  assert.deepEqual((await all(client.listSubscriptions({ topic_id: id }))).map(({ id }) => id), [id]);
  assert.ok((await all(client.listTopics())).some((topic) => topic.id === id));

  assert.equal(await client.deleteSubscription(id), undefined);
  await client.deleteTopic(id);
  await assert.rejects(client.getTopic(id), { status: 404, detail: "Topic not found" });
});

test("a list has the entries of all pages", async () => {
  const topic = await newSubscription(client);
  for (let n = 0; n < 104; n++) await client.createSubscription({ id: `${topic}.${n}`, topic_id: topic });

  const ids = (await all(client.listSubscriptions({ topic_id: topic }))).map(({ id }) => id);

  assert.equal(new Set(ids).size, 105);
  assert.equal(ids.length, 105);
});

test("what is published comes with all that it carries, and is settled", async () => {
  const id = await newSubscription(client, { backoff_min_seconds: 1 });

  const { message_ids, duplicates } = await client.publish(id, [
    { payload: { n: 1 }, attributes: { region: "eu" }, ordering_key: "k", priority: 3, idempotency_key: "once" },
    { payload: { n: 2 } },
    { payload: { n: 3 } },
    { payload: { n: 4 } },
    { payload: { n: 5 }, delay_seconds: 3600 },
    { payload: { n: 1 }, idempotency_key: "once" },
  ]);
  const { messages } = await client.pull(id, { wait_seconds: 1, ack_deadline_seconds: 30 });

  assert.deepEqual(duplicates, [5]);
  assert.equal(message_ids[5], message_ids[0]);
  const [first, second, third, fourth] = messages;
  assert.equal(messages.length, 4);
  assert.deepEqual(first.attributes, { region: "eu" });
  assert.deepEqual([first.id, first.ordering_key, first.priority], [message_ids[0], "k", 3]);
  assert.equal((await client.ack(first)).status, "acked");
  assert.equal((await client.ack(first)).status, "lease_lost");
  assert.equal((await client.nack(second, { delay_seconds: 0, reason: "disk full" })).status, "nacked");
  assert.equal((await client.reject(third, "not an image")).status, "dead_lettered");
  const extended = await client.extend(fourth, 600);
  assert.equal(extended.status, "extended");
  assert.ok(Date.parse(extended.ack_deadline) - Date.parse(fourth.ack_deadline) > 500_000);

  const again = await client.pull(id, { settle: { acks: [fourth.receipt] } });
  assert.deepEqual(again.results, [{ receipt: fourth.receipt, status: "acked" }]);
  assert.deepEqual(again.messages.map(({ payload, delivery_attempts }) => [payload.n, delivery_attempts]), [[2, 2]]);
});

test("dead letters are listed, delivered again and purged", async () => {
  const id = await newSubscription(client);
  await client.publish(id, [{ payload: { n: 1 } }, { payload: { n: 2 } }]);
  const { messages } = await client.pull(id);
  await client.settle(id, { rejects: messages.map(({ receipt }) => ({ receipt, reason: "no" })) });

  const letters = await all(client.listDeadLetters(id));
  const back = await client.reprocessDeadLetters(id, { filter: { n: [2] } });

  assert.deepEqual(letters.map(({ payload, reason, last_error }) => [payload.n, reason, last_error]), [
    [1, "rejected", "no"],
    [2, "rejected", "no"],
  ]);
  assert.deepEqual(back, { reprocessed: 1, remaining: 0 });
  assert.deepEqual((await client.pull(id)).messages.map(({ payload }) => payload.n), [2]);
  assert.deepEqual(await client.purgeDeadLetters(id), { purged: 1 });
});

test("an error has its status, what is wrong and where, and what it is about", async () => {
  const id = await newSubscription(client);

  const refused = await client
    .publish(id, [{ payload: {} }, { payload: {}, priority: 10, attributes: { n: 1 } }])
    .catch((error) => error);
  assert.ok(refused instanceof ApiError);
  assert.equal(refused.status, 422);
  assert.deepEqual(refused.faults.map(({ loc }) => loc.join(".")).sort(), [
    "body.messages.1.attributes.n",
    "body.messages.1.priority",
  ]);
  assert.match(refused.detail, /body\.messages\.1\.priority: Input should be less than or equal to 9/);
  assert.ok(refused.path.startsWith("body.messages.1."));

  const [message] = (await client.publish(id, [{ payload: {} }]), (await client.pull(id)).messages);
  await client.ack(message);
  const body = { acks: [{ subscription_id: id, receipt: message.receipt }] };
  await assert.rejects(client.request("POST", "/transactions", { body }), { status: 409, about: [message.receipt] });
});

test("a route that answers no JSON gives its text", async () => {
  assert.match(await client.request("GET", "/metrics"), /^# /m);
});

test("a signal that aborts ends a pull that waits, and nothing is lost or counted", async () => {
  const id = await newSubscription(client);
  const leave = new AbortController();
  const waiting = client.pull(id, { wait_seconds: 30 }, { signal: leave.signal });
  leave.abort(new Error("enough"));
  await assert.rejects(waiting, { message: "enough" });

  await client.publish(id, [{ payload: {} }]);

  const { messages } = await client.pull(id, { wait_seconds: 5 });
  assert.deepEqual(messages.map(({ delivery_attempts }) => delivery_attempts), [1]);
});

test("what is acked as it is pulled cannot be settled", async () => {
  const id = await newSubscription(client);
  await client.publish(id, [{ payload: {} }]);
  const { messages } = await client.pull(id, { auto_ack: true });
  await assert.rejects(client.ack(messages[0]), TypeError);
});

test("the types have all fields of the API", async () => {
  const { readFileSync } = await import("node:fs");
  const types = readFileSync(new URL("./types.d.ts", import.meta.resolve("fastpubsub-client")), "utf8");
  const { components } = await client.request("GET", "/openapi.json");
  const shown = ["OutgoingMessage", "PublishedMessages", "PulledMessage", "PullRequest", "SettleRequest", "SettleResult",
    "Nack", "Extend", "CreateSubscription", "UpdateSubscription", "Subscription", "Topic", "DeadLetter",
    "FailedDelivery", "ReprocessMatching"];
  for (const name of shown) {
    for (const field of Object.keys(components.schemas[name].properties)) {
      assert.match(types, new RegExp(`\\b${field}\\b`), `${name}.${field}`);
    }
  }
});
