import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Client, Reject, Retry } from "fastpubsub-client";
import { Server, lossy, metrics, newSubscription, quick, until } from "./server.js";

let server, client;
before(async () => {
  server = await Server.start();
  client = new Client(server.url);
});

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const payloads = (count) => Array.from({ length: count }, (_, n) => ({ payload: { n } }));

/** A worker that ends with its test, however that ends. */
function work(t, client, id, handler, options) {
  const worker = client.worker(id, handler, { onError: () => {}, ...options });
  t.after(() => worker.stop());
  return worker;
}

async function letters(id) {
  const found = [];
  for await (const letter of client.listDeadLetters(id)) found.push(letter);
  return found;
}

test("each message is handled and acked, so many at a time and no more", async (t) => {
  const id = await newSubscription(client);
  await client.publish(id, payloads(100));
  const handled = [];
  let running = 0, most = 0;

  const worker = work(t, client, id, async ({ payload }) => {
    most = Math.max(most, ++running);
    await sleep(payload.n % 7);
    running--;
    handled.push(payload.n);
  }, { concurrency: 10 });
  await until(() => handled.length === 100);
  await worker.stop();

  assert.equal(most, 10);
  assert.equal(new Set(handled).size, 100);
  assert.equal((await metrics(client, id)).acked, 100);
});

test("a backlog takes little more than a request for so many messages", async (t) => {
  const id = await newSubscription(client);
  await client.publish(id, payloads(500));
  const proxy = await lossy(server.url, () => false);
  let handled = 0;
  const worker = work(t, quick(proxy.url), id, () => void handled++, { concurrency: 50 });
  await until(() => handled === 500);
  await worker.stop();
  assert.equal((await metrics(client, id)).acked, 500);
  assert.ok(proxy.requests.length <= 14, `${proxy.requests.length} requests`);
  const pulls = proxy.requests.filter(({ url }) => url.endsWith("/pull")).map(({ body }) => JSON.parse(body));
  assert.ok(pulls.some(({ settle }) => settle));
  assert.ok(pulls.every(({ settle, wait_seconds }) => !settle || wait_seconds === 0), "acks are not unsure for long");
});

test("what a handler says is done at once, also while a pull waits for messages", async (t) => {
  const id = await newSubscription(client);
  const worker = work(t, client, id, () => sleep(200), { concurrency: 2 });
  const started = performance.now();
  await client.publish(id, payloads(1));
  await until(async () => (await metrics(client, id)).acked === 1);
  assert.ok(performance.now() - started < 5_000);
  await worker.stop();
});

test("a handler may take longer than the ack deadline: its lease is kept", async (t) => {
  const id = await newSubscription(client);
  await client.publish(id, payloads(2));
  const handled = [];
  const handler = async ({ payload, delivery_attempts }, { signal }) => {
    await sleep(2_500);
    handled.push([payload.n, delivery_attempts, signal.aborted]);
  };

  const workers = [1, 2].map(() => work(t, client, id, handler, { ackDeadlineSeconds: 1 }));
  await until(() => handled.length === 2);
  await Promise.all(workers.map((worker) => worker.stop()));

  assert.deepEqual(handled.sort(), [[0, 1, false], [1, 1, false]]);
  const { acked, totals } = await metrics(client, id);
  assert.deepEqual([acked, totals.delivered], [2, 2]);
});

test("whose lease is lost is told", async (t) => {
  const id = await newSubscription(client);
  await client.publish(id, payloads(1));
  let told;
  const worker = work(t, client, id, async (_message, { signal }) => {
    await client.request("DELETE", `/subscriptions/${id}/messages`);
    await until(() => signal.aborted, "the signal aborts");
    told = signal.reason.message;
  }, { ackDeadlineSeconds: 3 });
  await until(() => told);
  assert.match(told, /^the lease is lost/);
  await worker.stop();
});

test("whose lease cannot be extended is told before somebody else has the message", async (t) => {
  const id = await newSubscription(client);
  await client.publish(id, payloads(1));
  let tries = 0, toldAt;
  const noSettle = (url, options) =>
    String(url).endsWith("/settle") ? (tries++, Promise.reject(new TypeError("cut off"))) : fetch(url, options);
  const cutOff = new Client(server.url, undefined, { fetch: noSettle });
  const worker = work(t, cutOff, id, async (_message, { signal }) => {
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    toldAt = performance.now();
    void worker.stop();
  }, { ackDeadlineSeconds: 2 });
  await until(() => tries > 0);

  const { messages } = await client.pull(id, { wait_seconds: 10 });

  assert.equal(messages[0].delivery_attempts, 2);
  assert.ok(toldAt < performance.now());
  assert.ok(tries > 1, "it was tried again");
});

test("an ack that does not arrive is said again", async (t) => {
  const id = await newSubscription(client);
  await client.publish(id, payloads(10));
  const lost = { pull: 0, settle: 0 };
  const losing = (url, options) => {
    const by = String(url).endsWith("/settle") ? "settle" : JSON.parse(options.body).settle ? "pull" : undefined;
    return by && ++lost[by] <= 2 ? Promise.reject(new TypeError("cut off")) : fetch(url, options);
  };
  const unlucky = new Client(server.url, undefined, { fetch: losing });
  const worker = work(t, unlucky, id, ({ payload }) => payload.n < 9 || sleep(200), { concurrency: 4 });

  await until(async () => (await metrics(client, id)).acked === 10);
  await worker.stop();

  assert.ok(lost.pull > 2 && lost.settle > 2);
  assert.equal((await metrics(client, id)).totals.delivered, 10);
});

test("a failure is a nack with its reason, Retry says when, Reject buries at once", async (t) => {
  const id = await newSubscription(client, { max_delivery_attempts: 2, backoff_min_seconds: 1 });
  await client.publish(id, payloads(3));
  const attempts = [0, 0, 0];
  const retries = [];
  const errors = [];
  const worker = work(t, client, id, ({ payload: { n } }) => {
    attempts[n]++;
    if (n === 0) throw new TypeError("no such thing");
    if (n === 1) retries.push(performance.now());
    if (n === 1 && attempts[1] === 1) throw new Retry(3, "once more");
    if (n === 2) throw new Reject("not an image");
  }, { concurrency: 3, onError: (error, message) => errors.push(`${message.payload.n} ${error.name}`) });
  await until(async () => (await letters(id)).length === 2 && retries.length === 2);
  await worker.stop();

  const dead = (await letters(id)).map(({ payload, reason, last_error }) => [payload.n, reason, last_error]);
  assert.deepEqual(dead.sort(), [[0, "attempts", "TypeError: no such thing"], [2, "rejected", "not an image"]]);
  assert.deepEqual(attempts, [2, 2, 1]);
  assert.ok(retries[1] - retries[0] > 2_900);
  assert.equal((await metrics(client, id)).acked, 1);
  assert.deepEqual(errors.sort(), ["0 TypeError", "0 TypeError", "1 Retry", "2 Reject"]);
});

test("no reason is too strange for the server, nor spoils the acks that go with it", async (t) => {
  const id = await newSubscription(client, { max_delivery_attempts: 1 });
  await client.publish(id, payloads(8));
  const reasons = ["\0nul", "\ud83d half", "half \ude00", "🐘".repeat(3000), "x".repeat(5000), ""];
  const worker = work(t, client, id, ({ payload: { n } }) => {
    if (n < reasons.length) throw new Error(reasons[n]);
    if (n === 6) throw undefined;
  }, { concurrency: 8 });
  await until(async () => (await letters(id)).length === 7);
  await worker.stop();

  const said = Object.fromEntries((await letters(id)).map(({ payload, last_error }) => [payload.n, last_error]));
  assert.equal(said[0], "Error: \ufffdnul");
  assert.equal(said[1], "Error: \ufffd half");
  assert.equal(said[2], "Error: half \ufffd");
  assert.equal(said[3], `Error: ${"🐘".repeat(1017)}`);
  assert.equal(said[4].length, 1024);
  assert.equal(said[6], "undefined");
  assert.equal((await metrics(client, id)).acked, 1);
});

test("a delay that no nack may have is refused where it is made", () => {
  for (const seconds of [-1, 0.5, 43201, NaN]) assert.throws(() => new Retry(seconds), RangeError);
  assert.equal(new Retry(43200, "tomorrow").delaySeconds, 43200);
});

test("stop lets handlers finish and leaves nothing in its hands", async (t) => {
  const id = await newSubscription(client);
  await client.publish(id, payloads(300));
  let handled = 0;
  for (let stops = 0; stops < 20; stops++) {
    const worker = work(t, client, id, async () => (await sleep(Math.random() * 5), handled++), { concurrency: 5 });
    await sleep(10 + Math.random() * 20);
    await worker.stop();
    const { acked, delivered, available, totals } = await metrics(client, id);
    assert.deepEqual({ acked, delivered, available }, { acked: handled, delivered: 0, available: 300 - handled });
    assert.equal(totals.delivered, handled, "no attempt was spent on what was not handled");
  }
});

test("stop ends a pull that waits, and what comes then is for others", async (t) => {
  const id = await newSubscription(client);
  const worker = work(t, client, id, () => {}, {});
  await sleep(50);
  const started = performance.now();
  await worker.stop();
  assert.ok(performance.now() - started < 1_000);
  await client.publish(id, payloads(1));
  assert.deepEqual((await client.pull(id)).messages.map(({ delivery_attempts }) => delivery_attempts), [1]);
});

test("a handler that does not end in time is told, and its message given back", async (t) => {
  const id = await newSubscription(client, { backoff_min_seconds: 300 });
  await client.publish(id, payloads(2));
  const told = [];
  let begun = 0;
  const worker = work(t, client, id, async ({ payload }, { signal }) => {
    begun++;
    await new Promise((_resolve, reject) => {
      signal.addEventListener("abort", () => {
        told.push(payload.n);
        if (payload.n === 0) reject(signal.reason); // the other one does not care
      });
    });
  }, { concurrency: 2, stopTimeoutSeconds: 0.1 });
  await until(() => begun === 2);
  await worker.stop();

  assert.deepEqual(told, [0, 1]);
  const { messages } = await client.pull(id, { wait_seconds: 2 });
  assert.deepEqual(messages.map(({ payload }) => payload.n), [0, 1]);
});

test("a signal of its owner stops it", async (t) => {
  const id = await newSubscription(client);
  await client.worker(id, () => {}, { signal: AbortSignal.abort() }).finished;
  const leave = new AbortController();
  const worker = work(t, client, id, () => leave.abort(), { signal: leave.signal });
  await client.publish(id, payloads(1));
  await worker.finished;
  assert.equal((await metrics(client, id)).acked, 1);
});

test("a worker that is refused says so", async (t) => {
  await assert.rejects(client.worker("nowhere", () => {}).finished, { status: 404 });
  const id = await newSubscription(client);
  await assert.rejects(client.worker(id, () => {}, { ackDeadlineSeconds: 0 }).finished, { status: 422 });
});

test("a worker outlives a server that is killed, and all is handled", async (t) => {
  const server = await Server.start();
  const client = new Client(server.url);
  const id = await newSubscription(client);
  await client.publish(id, payloads(200));
  const handled = new Set();
  const errors = [];
  const worker = work(t, client, id, async ({ payload }) => {
    await sleep(5);
    handled.add(payload.n);
  }, { concurrency: 10, ackDeadlineSeconds: 2, onError: (error) => errors.push(error.name) });
  for (const count of [50, 100]) {
    await until(() => handled.size >= count);
    await server.crash();
  }
  await until(async () => (await metrics(client, id)).acked === 200);
  await worker.stop();
  assert.equal(handled.size, 200);
  assert.ok(errors.length > 0 && errors.every((name) => name === "ConnectionError" || name === "ApiError"), errors);
});

test("a process that gets SIGTERM finishes what it began, and ends by itself", async (t) => {
  const id = await newSubscription(client);
  await client.publish(id, payloads(20));
  const program = `
    import { Client } from "fastpubsub-client";
    const worker = new Client(process.argv[1]).worker(process.argv[2], async ({ payload }) => {
      console.log("begun", payload.n);
      await new Promise((resolve) => setTimeout(resolve, 700));
      console.log("done", payload.n);
    }, { concurrency: 3, signals: ["SIGTERM", "SIGINT"] });
    await worker.finished;
    console.log("finished");`;
  const cwd = fileURLToPath(new URL(".", import.meta.url));
  const child = spawn(process.execPath, ["--input-type=module", "-e", program, server.url, id], { cwd, stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((resolve) => child.once("exit", (code, signal) => resolve({ code, signal })));
  let printed = "";
  child.stdout.on("data", (data) => (printed += data));
  await until(() => printed.split("begun").length === 4);
  child.kill("SIGTERM");

  assert.deepEqual(await ended, { code: 0, signal: null });
  const count = (word) => printed.split(word).length - 1;
  assert.deepEqual([count("begun"), count("done"), count("finished")], [3, 3, 1]);
  const { acked, delivered, available, totals } = await metrics(client, id);
  assert.deepEqual({ acked, delivered, available, spent: totals.delivered }, { acked: 3, delivered: 0, available: 17, spent: 3 });
});
