/*
 * The tables of the engine. Schema pubsub_data holds them; callers touch only the functions and
 * views of schema pubsub.
 *
 * A published message is stored once (messages) and gets one thin row per matching subscription
 * (deliveries), which is leased, waits, and is deleted when it is acked or dead-lettered. What has to
 * be looked at again at a known time has a wake-up (wakeups). Every hot table starts its primary
 * key with topic_key, so that the tables can be distributed by topic, and no hot table has a foreign
 * key: a foreign key would lock the topic's row on every publish.
 */

create table pubsub_data.topics (
    topic_key bigint generated always as identity primary key,
    topic_id text collate "C" not null,
    -- how long messages are kept for replay; null: the server's retention
    message_retention_seconds int,
    created_at timestamptz not null default clock_timestamp(),
    constraint topics_topic_id_unique unique (topic_id),
    constraint topics_topic_id_valid check (topic_id ~ '^[a-zA-Z0-9._-]{1,128}$'),
    constraint topics_message_retention_seconds_valid
        check (message_retention_seconds between 0 and 31536000)
);

create table pubsub_data.subscriptions (
    topic_key bigint not null references pubsub_data.topics on delete cascade,
    subscription_key bigint generated always as identity,
    subscription_id text collate "C" not null,
    -- json, not jsonb: shown exactly as it was given
    filter json,
    -- the filter as one predicate over the payload; null when every message matches
    filter_path jsonpath,
    -- the same over the attributes
    attribute_filter_path jsonpath,
    max_delivery_attempts int not null,
    backoff_min_seconds int not null,
    backoff_max_seconds int not null,
    -- null: the caller's default applies at each claim
    ack_deadline_seconds int,
    -- messages of one ordering key one after the other, and what happens to a key whose message is spent
    enable_ordering boolean not null default false,
    ordering_failure text not null default 'dead_letter',
    -- the attribute whose values share the deliveries evenly
    fairness_key text,
    -- a message with a priority was published to it, now or ever: claims look for them
    has_priorities boolean not null default false,
    max_in_flight int,
    max_in_flight_per_consumer int,
    -- messages a second
    max_rate int,
    -- unconsumed messages expire after it; null: only those with an expiry of their own
    message_ttl_seconds int,
    dead_letter_expired boolean not null default false,
    -- spent messages are published there instead of being kept as dead letters
    dead_letter_topic_key bigint references pubsub_data.topics on delete set null,
    -- raised whenever messages come back below what claims have read: they go back to rewound_to
    rewinds int not null default 0,
    rewound_to uuid,
    created_at timestamptz not null default clock_timestamp(),
    primary key (topic_key, subscription_key),
    constraint subscriptions_subscription_id_unique unique (subscription_id),
    constraint subscriptions_subscription_id_valid
        check (subscription_id ~ '^[a-zA-Z0-9._-]{1,128}$'),
    constraint subscriptions_max_delivery_attempts_valid check (max_delivery_attempts >= 1),
    constraint subscriptions_backoff_valid
        check (backoff_min_seconds >= 1 and backoff_max_seconds >= backoff_min_seconds),
    constraint subscriptions_ack_deadline_seconds_valid
        check (ack_deadline_seconds between 1 and 43200),
    constraint subscriptions_ordering_failure_valid
        check (ordering_failure in ('dead_letter', 'park', 'skip')),
    constraint subscriptions_fairness_key_valid
        check (fairness_key is null
            or char_length(fairness_key) between 1 and 256 and not enable_ordering),
    constraint subscriptions_max_in_flight_valid check (max_in_flight between 1 and 1000000),
    constraint subscriptions_max_in_flight_per_consumer_valid
        check (max_in_flight_per_consumer between 1 and 1000000),
    constraint subscriptions_max_rate_valid check (max_rate between 1 and 1000000),
    constraint subscriptions_message_ttl_seconds_valid
        check (message_ttl_seconds between 1 and 31536000)
);

create index subscriptions_dead_letter_topic_idx
on pubsub_data.subscriptions (dead_letter_topic_key);

/* Rows of these keys are purged in batches, so that deleting a subscription is instant. */
create table pubsub_data.deleted_subscriptions (
    topic_key bigint not null,
    subscription_key bigint not null,
    deleted_at timestamptz not null default clock_timestamp(),
    primary key (topic_key, subscription_key)
);

/* The low bits of message ids. Starting at the lowest bigint makes to_hex() print 16 digits whose
   first is 8, the variant that RFC 9562 asks of a UUIDv7. */
create sequence pubsub_data.message_numbers
    minvalue -9223372036854775808 start with -9223372036854775808;

create sequence pubsub_data.wakeup_numbers cache 100;

/* Insert only. Rows leave by partition; message ids are UUIDv7, so a range of ids is a range of time. */
create table pubsub_data.messages (
    topic_key bigint not null,
    message_id uuid not null,
    payload jsonb not null,
    attributes jsonb,
    ordering_key text,
    priority smallint,
    published_at timestamptz not null,
    expires_at timestamptz,
    primary key (topic_key, message_id)
) partition by range (message_id);

/* Catches what no partition covers, so that a missing partition never fails a publish. */
create table pubsub_data.messages_default partition of pubsub_data.messages default;

/*
 * What is ready, in flight or waiting, one row per message and subscription.
 *   available   visible_at has passed
 *   delivered   leased, visible_at (the ack deadline) lies ahead
 *   scheduled   not leased, visible_at (backoff or delay) lies ahead
 * What a claim changes is in no index: claims then are HOT updates, for which the fillfactor leaves
 * room. visible_at must never be indexed.
 */
create table pubsub_data.deliveries (
    topic_key bigint not null,
    subscription_key bigint not null,
    message_id uuid not null,
    visible_at timestamptz not null default '-infinity',
    -- deliveries so far
    attempts int not null default 0,
    -- a random number of 53 bits that names the claim which holds it; null when nobody does
    lease bigint,
    leased_at timestamptz,
    consumer_id text,
    expires_at timestamptz,
    -- when the holder last extended the lease
    extended_at timestamptz,
    -- the queue within the subscription, for those that have any: the ordering key, the value of the
    -- fairness key, or a priority above 0
    lane text collate "C",
    primary key (topic_key, subscription_key, message_id)
) with (
    fillfactor = 40,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

/* Never updated, so leases stay HOT; plain messages are not in it. */
create index deliveries_lane_idx
on pubsub_data.deliveries (topic_key, subscription_key, lane, message_id)
where lane is not null;

/*
 * "Look at these messages again then": one row per claim (at its ack deadline), per nack (at the end
 * of the backoff) and per delayed publish. Never updated; deleted when due.
 */
create table pubsub_data.wakeups (
    topic_key bigint not null,
    subscription_key bigint not null,
    due_at timestamptz not null,
    wakeup_number bigint not null default nextval('pubsub_data.wakeup_numbers'),
    message_ids uuid[] not null,
    -- how far the claim had read: where a new connection starts, while the subscription's rewinds are
    -- the same
    head uuid,
    rewinds int,
    primary key (topic_key, subscription_key, due_at, wakeup_number)
) with (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

/* Holds its own copy of the message, which may outlive the message's partition. */
create table pubsub_data.dead_letters (
    topic_key bigint not null,
    subscription_key bigint not null,
    message_id uuid not null,
    payload jsonb not null,
    attributes jsonb,
    ordering_key text,
    priority smallint,
    published_at timestamptz not null,
    attempts int not null,
    consumer_id text,
    reason text not null,
    -- what the consumer said of the last attempt
    last_error text,
    -- the attempts: [{"attempt", "consumer_id", "delivered_at", "ended_at", "outcome", "reason"}]
    deliveries jsonb not null default '[]',
    dead_at timestamptz not null default clock_timestamp(),
    primary key (topic_key, subscription_key, message_id),
    constraint dead_letters_reason_valid
        check (reason in ('attempts', 'rejected', 'expired', 'consumer_lost'))
);

/*
 * Deliveries that did not end in an ack, for dead letters and timelines. Append only; they leave by
 * age. An ordinary message has none.
 */
create table pubsub_data.failures (
    topic_key bigint not null,
    subscription_key bigint not null,
    message_id uuid not null,
    attempt int not null,
    consumer_id text,
    delivered_at timestamptz,
    ended_at timestamptz not null,
    outcome text not null,
    reason text,
    constraint failures_outcome_valid check (
        outcome in ('nacked', 'rejected', 'expired', 'consumer_lost', 'parked', 'skipped', 'released')
    )
);
alter table pubsub_data.failures replica identity full;

create index failures_message_idx
on pubsub_data.failures (topic_key, subscription_key, message_id);

create index failures_ended_at_idx on pubsub_data.failures (ended_at);

/*
 * What was published under an idempotency key: of a message (one id), or of a whole request.
 * Rows leave by age.
 */
create table pubsub_data.idempotency_keys (
    topic_key bigint not null,
    scope text not null,
    idempotency_key text collate "C" not null,
    message_ids uuid[] not null,
    -- of a request: tells another request under the same key
    fingerprint text,
    created_at timestamptz not null,
    primary key (topic_key, scope, idempotency_key),
    constraint idempotency_keys_scope_valid check (scope in ('message', 'request'))
);

create index idempotency_keys_created_at_idx on pubsub_data.idempotency_keys (created_at);

/* The values that the fairness keys of subscriptions have had lately: claims go round them. */
create table pubsub_data.fair_lanes (
    topic_key bigint not null,
    subscription_key bigint not null,
    lane text collate "C" not null,
    created_at timestamptz not null default clock_timestamp(),
    primary key (topic_key, subscription_key, lane)
);

/* What rate-limited subscriptions were handed out. Rows of the last seconds matter. */
create table pubsub_data.handed_out (
    topic_key bigint not null,
    subscription_key bigint not null,
    handed_out_at timestamptz not null,
    messages int not null
);
alter table pubsub_data.handed_out replica identity full;

create index handed_out_idx
on pubsub_data.handed_out (topic_key, subscription_key, handed_out_at);

/* A subscription's place in its topic, saved: what it had not settled then, and from when on. */
create table pubsub_data.snapshots (
    snapshot_id text collate "C" primary key,
    topic_key bigint not null,
    subscription_key bigint not null,
    created_at timestamptz not null default clock_timestamp(),
    -- messages from here on were published after it
    position uuid not null,
    constraint snapshots_snapshot_id_valid check (snapshot_id ~ '^[a-zA-Z0-9._-]{1,128}$'),
    constraint snapshots_subscription_fk foreign key (topic_key, subscription_key)
        references pubsub_data.subscriptions on delete cascade
);

create index snapshots_subscription_idx
on pubsub_data.snapshots (topic_key, subscription_key);

create table pubsub_data.snapshot_messages (
    snapshot_id text collate "C" not null
        references pubsub_data.snapshots on delete cascade,
    part int not null,
    message_ids uuid[] not null,
    primary key (snapshot_id, part)
);

/* Work that goes over many messages in steps: seeks, replays and redrives. */
create table pubsub_data.jobs (
    job_id uuid primary key default gen_random_uuid(),
    kind text not null,
    topic_key bigint not null,
    subscription_key bigint not null,
    state text not null default 'running',
    arguments jsonb not null,
    -- how far it has come: the last message id looked at
    position uuid,
    scanned bigint not null default 0,
    changed bigint not null default 0,
    error text,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    constraint jobs_kind_valid check (kind in ('seek', 'replay', 'redrive')),
    constraint jobs_state_valid check (state in ('running', 'done', 'cancelled', 'failed')),
    constraint jobs_subscription_fk foreign key (topic_key, subscription_key)
        references pubsub_data.subscriptions on delete cascade
);

create index jobs_subscription_idx on pubsub_data.jobs (topic_key, subscription_key);

/* What was acked, a row per call, attempts and consumer. Append only; rows leave by partition. */
create table pubsub_data.acked (
    topic_key bigint not null,
    subscription_key bigint not null,
    acked_at timestamptz not null,
    delivered_at timestamptz,
    attempts int not null,
    consumer_id text not null,
    message_ids uuid[] not null
) partition by range (acked_at);

-- uncompressed: compressing ids costs more than it saves
alter table pubsub_data.acked alter column message_ids set storage external;
alter table pubsub_data.wakeups alter column message_ids set storage external;

create index acked_subscription_idx
on pubsub_data.acked (topic_key, subscription_key, acked_at);

create table pubsub_data.acked_default partition of pubsub_data.acked default;
-- without a primary key, logical replication of deletes needs whole rows
alter table pubsub_data.acked_default replica identity full;

/*
 * How the counts of a subscription change: a row per call, none ever updated, folded into fewer rows
 * in the background. backlog, acked, dlq and expired are sums over all rows. leased and waiting count, by the
 * time at which that ends, messages that cannot be consumed yet: only rows whose due_at lies ahead
 * matter. The table stays small and is read as a whole: calls must not pay for an index, but those of
 * subscriptions that limit what is in flight, whose claims look at it each time.
 */
create table pubsub_data.counters (
    topic_key bigint not null,
    subscription_key bigint not null,
    due_at timestamptz not null default '-infinity',
    -- of leased, where the subscription limits what may be in flight, in all or per consumer
    consumer_id text,
    backlog bigint not null default 0,
    leased bigint not null default 0,
    waiting bigint not null default 0,
    acked bigint not null default 0,
    dlq bigint not null default 0,
    -- never delivered because their time was over
    expired bigint not null default 0
) with (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);
alter table pubsub_data.counters replica identity full;

create index counters_held_idx
on pubsub_data.counters (topic_key, subscription_key, due_at)
where consumer_id is not null;

/* The bounds of the partitions of messages and acked, default partitions excepted. */
create table pubsub_data.partitions (
    parent text not null,
    name text not null,
    from_at timestamptz not null,
    until_at timestamptz not null,
    primary key (parent, from_at),
    constraint partitions_parent_valid check (parent in ('messages', 'acked')),
    constraint partitions_range_valid check (until_at > from_at)
);

/* Who does a job that one server at a time does, and until when. */
create table pubsub_data.leaders (
    job text primary key,
    holder text not null,
    held_until timestamptz not null
);

create table pubsub_data.clients (
    client_id uuid primary key,
    name text not null,
    scopes text not null,
    is_active boolean not null,
    -- tagged: sha256$..., or the argon2 string of the Python original
    secret_hash text not null,
    -- tokens carry it; raising it revokes them
    token_version int not null default 1,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp()
);
