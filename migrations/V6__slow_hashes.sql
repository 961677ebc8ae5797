/*
 * Whether some client still has a slow hash of the Python original is asked at every refused login,
 * which anybody may cause. The previous binary keeps working: it does not ask.
 */

-- the condition is that of slow_hashes_exist; the set is empty once each client has logged in
create index clients_slow_hash_idx on pubsub_data.clients (client_id)
where not starts_with(secret_hash, 'sha256$');
