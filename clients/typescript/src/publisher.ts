import type { Client } from "./client.js";
import { ApiError } from "./errors.js";
import type { RequestOptions } from "./transport.js";
import type { OutgoingMessage } from "./types.js";

export interface PublisherOptions extends RequestOptions {
  /** Most messages of one request, 1 to 1000; default 100. */
  maxMessages?: number | undefined;
  /** Most bytes of one request, default 1 MiB; one message always goes. */
  maxBytes?: number | undefined;
  /** How long the first message of a request waits for others, in ms; default 5. */
  maxDelayMs?: number | undefined;
  /** How many messages may be waiting or on their way before `ready` waits; default 10,000. */
  maxPending?: number | undefined;
}

interface Pending {
  /** Encoded when it was given, so what its owner changes later does not count. */
  json: string;
  bytes: number;
  resolve: (id: string) => void;
  reject: (error: unknown) => void;
}

/**
 * Publishes to one topic, many messages a request. One request at a time, so the order is that of the calls, and
 * each has an idempotency key, so it is tried again until its time is over without publishing anything twice.
 */
export class Publisher {
  readonly #queue: Pending[] = [];
  readonly #options;
  #pendingCount = 0;
  #queuedBytes = 0;
  #closed = false;
  #running = false;
  /** The last message that was given. */
  #last: Promise<unknown> = Promise.resolve();
  /** Ends the wait for more messages. */
  #hurry: () => void = () => {};
  #whenReady: (() => void)[] = [];

  constructor(
    private readonly client: Client,
    private readonly topic: string,
    options: PublisherOptions = {},
  ) {
    const { maxMessages = 100, maxBytes = 1024 * 1024, maxDelayMs = 5, maxPending = 10_000, ...request } = options;
    this.#options = { maxMessages, maxBytes, maxDelayMs, maxPending, request };
  }

  /** Resolves with the id of the message once it is on the server's disk. */
  async publish(message: OutgoingMessage): Promise<string> {
    if (this.#closed) throw new Error("the publisher is closed");
    const json = JSON.stringify(message);
    const bytes = new TextEncoder().encode(json).length;
    const published = new Promise<string>((resolve, reject) => {
      this.#queue.push({ json, bytes, resolve, reject });
    });
    this.#last = published;
    this.#pendingCount++;
    this.#queuedBytes += bytes;
    if (!this.#running) void this.#run();
    else if (this.#isFull()) this.#hurry();
    return published;
  }

  /** Backpressure: resolves when there is room. For loops that do not wait for each message. */
  async ready(): Promise<void> {
    while (this.#pendingCount >= this.#options.maxPending) {
      await new Promise<void>((resolve) => this.#whenReady.push(resolve));
    }
  }

  /** Publishes what waits; resolves when all that was given has its answer, good or bad. */
  async flush(): Promise<void> {
    this.#hurry();
    await this.#last.catch(() => {});
  }

  /** Flushes, and takes no more messages. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.flush();
  }

  async #run(): Promise<void> {
    this.#running = true;
    await this.#gather();
    while (this.#queue.length > 0) await this.#send(this.#take());
    this.#running = false;
  }

  #isFull(): boolean {
    return this.#queue.length >= this.#options.maxMessages || this.#queuedBytes >= this.#options.maxBytes;
  }

  async #gather(): Promise<void> {
    if (this.#isFull() || this.#closed) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, this.#options.maxDelayMs);
      this.#hurry = () => (clearTimeout(timer), resolve());
    });
  }

  #take(): Pending[] {
    let bytes = 0;
    const end = this.#queue.findIndex((pending, position) => {
      bytes += pending.bytes;
      return position > 0 && (position >= this.#options.maxMessages || bytes > this.#options.maxBytes);
    });
    const batch = this.#queue.splice(0, end === -1 ? this.#queue.length : end);
    for (const pending of batch) this.#queuedBytes -= pending.bytes;
    return batch;
  }

  async #send(batch: Pending[]): Promise<void> {
    const body = `{"messages":[${batch.map((pending) => pending.json).join(",")}]}`;
    try {
      const { message_ids } = await this.client.publishEncoded(this.topic, body, this.#options.request);
      batch.forEach((pending, position) => pending.resolve(message_ids[position] as string));
    } catch (error) {
      const parts = batch.length > 1 ? split(batch, error) : undefined;
      if (parts === undefined) {
        for (const pending of batch) pending.reject(error);
      } else {
        for (const part of parts) await this.#send(part);
        return;
      }
    }
    this.#pendingCount -= batch.length;
    if (this.#pendingCount < this.#options.maxPending) {
      for (const resolve of this.#whenReady.splice(0)) resolve();
    }
  }
}

/**
 * A refused request has published nothing, and its good messages are not to fail with a bad one. The bad ones go
 * alone, each to learn what is wrong with it; where the server does not tell which they are, it is one half and
 * then the other.
 */
function split(batch: Pending[], error: unknown): Pending[][] | undefined {
  if (!(error instanceof ApiError) || (error.status !== 422 && error.status !== 413)) return undefined;
  const bad = new Set(error.faults.map(({ loc }) => (loc[1] === "messages" ? batch[Number(loc[2])] : undefined)));
  bad.delete(undefined);
  if (bad.size > 0 && bad.size < batch.length) {
    const good = batch.filter((pending) => !bad.has(pending));
    return [good, ...[...bad].map((pending) => [pending as Pending])];
  }
  const half = batch.length >> 1;
  return [batch.slice(0, half), batch.slice(half)];
}
