/*
 * A client may have an API key beside its secret. While one takes the place of another both are good
 * for a time, so that those who use it need not change all at once.
 *
 * Counters have totals since ever. What is counted most, publishes, first deliveries and acks, is told by
 * the changes that their rows have anyway, so these rows stay as they are.
 *
 * The previous binary keeps working: what it writes into clients names its columns, counters are
 * written by routines alone, and the new columns may be null.
 */

alter table pubsub_data.clients
-- tagged as secrets are; null: it has no key
add column api_key_hash text,
-- the one before, which is good until then
add column previous_api_key_hash text,
add column previous_api_key_until timestamptz,
add constraint clients_api_key_hash_unique unique (api_key_hash),
add constraint clients_previous_api_key_hash_unique unique (previous_api_key_hash),
add constraint clients_previous_api_key_ends
    check ((previous_api_key_hash is null) = (previous_api_key_until is null));

alter table pubsub_data.counters
-- null: what backlog went up by, since messages mostly come by a publish
add column published bigint,
-- null: what leased went up by, since leases mostly come by a claim
add column delivered bigint,
-- acked and not remembered any more, which acked is less by
add column forgotten bigint,
add column nacked bigint,
add column rejected bigint,
add column dead_lettered bigint,
-- those of delivered that were delivered before
add column redelivered bigint,
add column extended bigint;

-- what was counted before tells no totals: they begin now, but for expired, which was one
update pubsub_data.counters
set published = 0, delivered = 0, forgotten = -acked;
