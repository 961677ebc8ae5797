import { Publisher, type PublisherOptions } from "./publisher.js";
import { stream, type StreamOptions } from "./stream.js";
import { Transport, type ApiRequest, type Credentials, type RequestOptions, type TransportOptions } from "./transport.js";
import type { CreateSubscription, DeadLetter, Reprocess, Subscription, SubscriptionSettings, Topic } from "./types.js";
import type { Message, Nack, OutgoingMessage, Published, Pull, Settle, SettleResult } from "./types.js";
import { Worker, type Handler, type WorkerOptions } from "./worker.js";

export interface ClientOptions extends TransportOptions {
  /** Who pulls, for people who look for a stuck message; by default host and process. */
  consumerId?: string | undefined;
}

export interface PublishOptions extends RequestOptions {
  /** 1 to 256 visible ASCII characters; false for none: cheaper, and not retried. By default one is made. */
  idempotencyKey?: string | false | undefined;
}

/** A delivery: what pulls, workers and streams hand out. */
type Delivery = Pick<Message, "subscription_id" | "receipt">;

/** The API of one server, or of several behind one address. */
export class Client {
  readonly #transport: Transport;
  /** Who pulls. */
  readonly consumerId: string;

  constructor(baseUrl: string, credentials?: Credentials, options: ClientOptions = {}) {
    this.#transport = new Transport(baseUrl, credentials, options);
    this.consumerId = options.consumerId ?? defaultConsumerId();
  }

  /** Any route of the API: the JSON of its answer. */
  request<T = unknown>(method: string, path: string, request?: ApiRequest): Promise<T> {
    return this.#transport.request<T>(method, path, request);
  }

  createTopic(
    topic: {
      id: string;
      message_retention_seconds?: number | null | undefined;
      index_ordering_keys?: boolean | undefined;
    },
    options?: RequestOptions,
  ) {
    return this.request<Topic>("POST", "/topics", { ...options, body: topic });
  }

  getTopic(topic: string, options?: RequestOptions) {
    return this.request<Topic>("GET", at("topics", topic), options);
  }

  updateTopic(topic: string, settings: { message_retention_seconds: number | null }, options?: RequestOptions) {
    return this.request<Topic>("PATCH", at("topics", topic), { ...options, body: settings });
  }

  /** Deletes its subscriptions, too. */
  deleteTopic(topic: string, options?: RequestOptions) {
    return this.request<void>("DELETE", at("topics", topic), options);
  }

  /** All topics that the client may read, in the order of their ids. */
  listTopics(options?: RequestOptions): AsyncGenerator<Topic, void, undefined> {
    return this.#pages<Topic>("/topics", {}, options);
  }

  createSubscription(subscription: CreateSubscription, options?: RequestOptions) {
    return this.request<Subscription>("POST", "/subscriptions", { ...options, body: subscription });
  }

  getSubscription(subscription: string, options?: RequestOptions) {
    return this.request<Subscription>("GET", at("subscriptions", subscription), options);
  }

  /** Settings that are left out stay, null takes one back. */
  updateSubscription(subscription: string, settings: SubscriptionSettings, options?: RequestOptions) {
    return this.request<Subscription>("PATCH", at("subscriptions", subscription), { ...options, body: settings });
  }

  deleteSubscription(subscription: string, options?: RequestOptions) {
    return this.request<void>("DELETE", at("subscriptions", subscription), options);
  }

  /** All subscriptions that the client may read, or those of one topic, in the order of their ids. */
  listSubscriptions(query: { topic_id?: string | undefined } = {}, options?: RequestOptions) {
    return this.#pages<Subscription>("/subscriptions", query, options);
  }

  /** Publishes 1 to 1000 messages or, where it throws an ApiError, none. For many calls there is `publisher`. */
  publish(topic: string, messages: OutgoingMessage[], options: PublishOptions = {}): Promise<Published> {
    return this.publishEncoded(topic, JSON.stringify({ messages }), options);
  }

  /** @internal */
  publishEncoded(topic: string, body: string, options: PublishOptions): Promise<Published> {
    const { idempotencyKey: key = randomId(), ...rest } = options;
    const headers = key === false ? undefined : { "Idempotency-Key": key };
    return this.request("POST", at("topics", topic, "publish"), { ...rest, body, headers, idempotent: key !== false });
  }

  /** Gathers messages and publishes them together, in order. */
  publisher(topic: string, options?: PublisherOptions): Publisher {
    return new Publisher(this, topic, options);
  }

  /**
   * Leases messages. Tried again when the answer was lost: what was in that comes again when its leases end.
   * With `auto_ack` it would not, so such a pull is not.
   */
  pull<Payload = Record<string, unknown>>(subscription: string, pull: Pull = {}, options: RequestOptions = {}) {
    const timeoutMs = options.timeoutMs ?? 30_000 + (pull.wait_seconds ?? 0) * 1000;
    return this.request<{ messages: Message<Payload>[]; results?: SettleResult[] }>(
      "POST", at("subscriptions", subscription, "pull"),
      { ...options, timeoutMs, body: { consumer_id: this.consumerId, ...pull }, idempotent: pull.auto_ack !== true },
    );
  }

  /** Settles up to 1000 deliveries; after a retry, `lease_lost` may mean that the first try did it. */
  async settle(subscription: string, settle: Settle, options?: RequestOptions): Promise<SettleResult[]> {
    const path = at("subscriptions", subscription, "settle");
    const request = { ...options, body: settle, idempotent: true };
    return (await this.request<{ results: SettleResult[] }>("POST", path, request)).results;
  }

  /** It is done. */
  ack(message: Delivery, options?: RequestOptions): Promise<SettleResult> {
    return this.#settleOne(message, (receipt) => ({ acks: [receipt] }), options);
  }

  /** Deliver it again: after `delay_seconds`, by default after the backoff of the subscription. */
  nack(message: Delivery, nack: Omit<Nack, "receipt"> = {}, options?: RequestOptions) {
    return this.#settleOne(message, (receipt) => ({ nacks: [{ ...nack, receipt }] }), options);
  }

  /** Nobody can ever handle it: a dead letter at once. */
  reject(message: Delivery, reason?: string, options?: RequestOptions): Promise<SettleResult> {
    return this.#settleOne(message, (receipt) => ({ rejects: [{ receipt, reason }] }), options);
  }

  /** Its ack deadline moves to so many seconds from now, later or earlier: 1 to 43200. */
  extend(message: Delivery, seconds: number, options?: RequestOptions): Promise<SettleResult> {
    return this.#settleOne(message, (receipt) => ({ extends: [{ receipt, seconds }] }), options);
  }

  /** Pulls and handles messages until it is stopped: leases are extended, acks and nacks come by themselves. */
  worker<Payload = Record<string, unknown>>(
    subscription: string, handler: Handler<Payload>, options?: WorkerOptions,
  ): Worker<Payload> {
    return new Worker(this, subscription, handler, options);
  }

  /**
   * Messages as they come, over Server-Sent Events; comes back when the connection ends. Settle them with `ack`
   * and the like. Who leaves the loop gives back at once what is not settled, and those deliveries do not count.
   */
  stream<Payload = Record<string, unknown>>(subscription: string, options: StreamOptions = {}) {
    const path = at("subscriptions", subscription, "stream");
    return stream<Payload>(this.#transport, path, { consumerId: this.consumerId, ...options });
  }

  /** The dead letters of a subscription, the oldest first. */
  listDeadLetters<Payload = Record<string, unknown>>(subscription: string, options?: RequestOptions) {
    return this.#pages<DeadLetter<Payload>>(at("subscriptions", subscription, "dlq"), {}, options);
  }

  /** Delivers dead letters again; call again while some remain. */
  reprocessDeadLetters(subscription: string, which: Reprocess, options?: RequestOptions) {
    const path = at("subscriptions", subscription, "dlq", "reprocess");
    return this.request<{ reprocessed: number; remaining: number }>("POST", path, { ...options, body: which });
  }

  /** Deletes all dead letters for good. */
  purgeDeadLetters(subscription: string, options?: RequestOptions) {
    return this.request<{ purged: number }>("DELETE", at("subscriptions", subscription, "dlq"), options);
  }

  async #settleOne(message: Delivery, how: (receipt: string) => Settle, options?: RequestOptions) {
    if (message.receipt === undefined) throw new TypeError("the message has no receipt: it is acked already");
    const [result] = await this.settle(message.subscription_id, how(message.receipt), options);
    return result as SettleResult;
  }

  async *#pages<T extends { id: string }>(path: string, query: object, options?: RequestOptions) {
    for (let after: string | undefined; ; ) {
      const request = { ...options, query: { ...query, after, limit: 100 } };
      const { data } = await this.request<{ data: T[] }>("GET", path, request);
      // a short page may have been too many bytes: only an empty one is the end
      if (data.length === 0) return;
      yield* data;
      after = data.at(-1)?.id;
    }
  }
}

function at(...segments: string[]): string {
  return segments.map((segment) => `/${encodeURIComponent(segment)}`).join("");
}

/** Unlike crypto.randomUUID, also on pages without TLS and on Node 18. */
function randomId(): string {
  const { crypto } = globalThis as { crypto?: Partial<Crypto> };
  return crypto?.randomUUID?.() ?? Array.from({ length: 4 }, () => Math.random().toString(36).slice(2)).join("-");
}

function defaultConsumerId(): string {
  const { process } = globalThis as { process?: { pid?: number; env?: Record<string, string | undefined> } };
  return `${process?.env?.["HOSTNAME"] ?? "client"}-${process?.pid ?? randomId()}`;
}
