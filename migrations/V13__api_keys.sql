/*
 * A client may have an API key beside its secret. While one takes the place of another both are good
 * for a time, so that those who use it need not change all at once. The previous binary keeps working:
 * it names the columns that it writes, and the new ones may be null.
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
