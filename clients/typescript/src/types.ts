/** Bodies of the API, under the names that they have there: /docs of a server explains each. */

/** A message to publish. */
export interface OutgoingMessage {
  /** A JSON object, at most 1 MiB unless the server has another limit. */
  payload: object;
  /** Up to 100 strings by name, which filters find. */
  attributes?: Record<string, string> | null | undefined;
  /** Messages with the same key are delivered in publish order, where a subscription has `enable_ordering`. */
  ordering_key?: string | null | undefined;
  /** 0 (default) to 9, the higher first. */
  priority?: number | null | undefined;
  /** Not available before so many seconds have passed. */
  delay_seconds?: number | null | undefined;
  /** Not available before this time, RFC 3339. */
  deliver_at?: string | null | undefined;
  /** Not delivered later than so many seconds after it is available. */
  ttl_seconds?: number | null | undefined;
  /** Not delivered after this time, RFC 3339. */
  expires_at?: string | null | undefined;
  /** Published once under this key, also by other publishers and after a crash of yours. */
  idempotency_key?: string | null | undefined;
  /** Not published while another message under this key is queued or in hands. */
  message_key?: string | null | undefined;
}

/** What was published. */
export interface Published {
  /** In the order of the messages. */
  message_ids: string[];
  /** Positions of those that had been published before; after a retry, of all. */
  duplicates: number[];
}

/** A delivery of a message. */
export interface Message<Payload = Record<string, unknown>> {
  id: string;
  subscription_id: string;
  payload: Payload;
  attributes: Record<string, string>;
  ordering_key: string | null;
  priority: number;
  /** How often it was delivered, this delivery included. */
  delivery_attempts: number;
  /** When it was published. */
  created_at: string;
  /** Names this very delivery; absent of what is acked already (`auto_ack`). */
  receipt?: string;
  /** When its lease ends, by the server's clock. */
  ack_deadline?: string;
}

/** How to pull. */
export interface Pull {
  /** Who holds the leases; by default the client's `consumerId`. */
  consumer_id?: string | undefined;
  /** 1 to 1000, default 10. */
  max_messages?: number | undefined;
  /** How long to wait where there is no message, 0 (default) to 30. */
  wait_seconds?: number | undefined;
  /** How long the leases last, 1 to 43200; by default as the subscription says. */
  ack_deadline_seconds?: number | undefined;
  /** Acked as they are handed out: at most once. Such a pull is never retried. */
  auto_ack?: boolean | undefined;
  /** What was never delivered (`new`), or not to this consumer (`unseen`). */
  only?: "new" | "unseen" | undefined;
  /** What to settle first. */
  settle?: Settle | undefined;
}

export interface Nack {
  receipt: string;
  /** When it is delivered again, 0 to 43200; by default after the backoff of the subscription. */
  delay_seconds?: number | undefined;
  /** At most 1024 characters. */
  reason?: string | undefined;
}

/** What to settle, and how: at most 1000 deliveries in all, each named once. */
export interface Settle {
  acks?: string[] | undefined;
  nacks?: Nack[] | undefined;
  rejects?: Omit<Nack, "delay_seconds">[] | undefined;
  extends?: { receipt: string; seconds: number }[] | undefined;
}

/** What became of a delivery. */
export interface SettleResult {
  receipt: string;
  /** `lease_lost`: it was settled before, or its lease ended and it is somebody else's. */
  status: "acked" | "nacked" | "dead_lettered" | "extended" | "parked" | "skipped" | "lease_lost";
  /** Of what was extended: when the lease ends now. */
  ack_deadline?: string;
}

export interface Topic {
  id: string;
  created_at: string;
  message_retention_seconds?: number;
  /** Retained messages are found at once by ordering key. */
  index_ordering_keys?: boolean;
}

/** Settings of a subscription; null takes one back. */
export interface SubscriptionSettings {
  filter?: object | null | undefined;
  ack_deadline_seconds?: number | null | undefined;
  max_delivery_attempts?: number | undefined;
  backoff_min_seconds?: number | undefined;
  backoff_max_seconds?: number | undefined;
  backoff_strategy?: "exponential" | "linear" | "fixed" | undefined;
  enable_ordering?: boolean | undefined;
  ordering_failure?: "dead_letter" | "park" | "skip" | undefined;
  fairness_key?: string | null | undefined;
  max_in_flight?: number | null | undefined;
  max_in_flight_per_consumer?: number | null | undefined;
  max_rate?: number | null | undefined;
  message_ttl_seconds?: number | null | undefined;
  dead_letter_expired?: boolean | undefined;
  dead_letter_topic_id?: string | null | undefined;
  paused?: boolean | undefined;
  /** Deleted when nobody was there for it for so long. */
  expires_after_seconds?: number | null | undefined;
  push?: { endpoint: string; headers?: Record<string, string>; timeout_seconds?: number } | null | undefined;
}

export interface CreateSubscription extends SubscriptionSettings {
  id: string;
  topic_id: string;
  /** Also receive what was published at or after this time and is retained. */
  start_from?: string | null | undefined;
}

type Always = "filter" | "max_delivery_attempts" | "backoff_min_seconds" | "backoff_max_seconds";
type WhereSet<T> = { [Name in keyof T]?: NonNullable<T[Name]> };

/** A subscription: settings that are off are absent. */
export interface Subscription extends WhereSet<Omit<SubscriptionSettings, Always | "push">> {
  id: string;
  topic_id: string;
  filter: Record<string, unknown> | null;
  max_delivery_attempts: number;
  backoff_min_seconds: number;
  backoff_max_seconds: number;
  created_at: string;
  push?: { endpoint: string; timeout_seconds: number; failures: number; [more: string]: unknown };
}

/** A message that a subscription gave up. */
export interface DeadLetter<Payload = Record<string, unknown>>
  extends Omit<Message<Payload>, "receipt" | "ack_deadline"> {
  reason: "attempts" | "rejected" | "expired" | "consumer_lost";
  /** What the consumer said of the last attempt. */
  last_error: string | null;
  dead_at: string;
  /** The deliveries that failed, the oldest first. */
  deliveries: FailedDelivery[];
}

export interface FailedDelivery {
  attempt: number;
  outcome: string;
  ended_at: string;
  delivered_at?: string;
  consumer_id?: string;
  reason?: string;
}

/** Which dead letters are delivered again: those of a filter, or all. */
export type Reprocess = ({ all: true } | { filter: object }) & {
  /** Most of them, 1 to 10000 (default). */
  limit?: number | undefined;
  /** Hand out no more than so many a second. */
  per_second?: number | undefined;
};
