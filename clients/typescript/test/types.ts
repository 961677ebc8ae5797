// Compiled in a program for Node and in one for browsers.
import { ApiError, Client, Reject, Retry, type Message, type Worker } from "fastpubsub-client";

interface Order {
  order: number;
}

const client = new Client("https://example.com", { clientId: "c", clientSecret: "s" }, { retryMs: undefined });

export async function use(signal?: AbortSignal): Promise<number> {
  const order: Order = { order: 1 };
  const { message_ids } = await client.publish("t", [{ payload: order, ordering_key: undefined }], { signal });
  const { messages, results } = await client.pull<Order>("s", { max_messages: 1, only: "new" }, { signal });
  const first: Message<Order> | undefined = messages[0];
  if (first !== undefined) await client.nack(first, { delay_seconds: undefined, reason: "no" }, { signal });
  const worker: Worker<Order> = client.worker<Order>("s", async ({ payload }, { signal }) => {
    signal.throwIfAborted();
    if (payload.order > 5) throw payload.order > 9 ? new Reject() : new Retry(5);
  }, { signal });
  await worker.finished;
  for await (const { payload } of client.stream<Order>("s", { signal })) return payload.order;
  for await (const letter of client.listDeadLetters<Order>("s")) return letter.payload.order;
  await client.createSubscription({ id: "s", topic_id: "t", push: null, backoff_strategy: "fixed" });
  const { paused = false } = await client.getSubscription("s");
  return message_ids.length + (results?.length ?? 0) + Number(paused);
}

export const path = (error: unknown): string | undefined => (error instanceof ApiError ? error.path : undefined);

// @ts-expect-error a message has a payload
void client.publish("t", [{}]);
// @ts-expect-error an attribute is a string
void client.publish("t", [{ payload: {}, attributes: { n: 1 } }]);
// @ts-expect-error a setting of another name
void client.createSubscription({ id: "s", topic_id: "t", ackDeadline: 5 });
// @ts-expect-error without a secret
export const noSecret = new Client("https://example.com", { clientId: "c" });
