/*
 * An API key of a client does what a token with all its scopes does. It is 256 random bits of which
 * only the fast hash is stored, so it is found by equality through an index: a comparison that ends
 * early would tell something of the hash at most, from which no key follows.
 *
 * A client has one key, and beside it the one before until its overlap ends.
 */

/*
 * api_key_credentials — whom keys belong to, of all that are asked for at once.
 *
 * Out      a row for each hash that is known and whose overlap has not ended; is_active and scopes are
 *          the client's as of now
 */
create function pubsub.api_key_credentials(p_api_key_hashes text[])
returns table (
    api_key_hash text, client_id uuid, scopes text, is_active boolean, token_version int
)
language sql stable parallel safe
as $$
    select c.api_key_hash, c.client_id, c.scopes, c.is_active, c.token_version
    from pubsub_data.clients c
    where c.api_key_hash = any(p_api_key_hashes)
    union all
    select c.previous_api_key_hash, c.client_id, c.scopes, c.is_active, c.token_version
    from pubsub_data.clients c
    where c.previous_api_key_hash = any(p_api_key_hashes)
        and c.previous_api_key_until > now()
$$;

comment on function pubsub.api_key_credentials is
    'The clients that API keys belong to, by the hashes of the keys; no row for an unknown one.';

/*
 * rotate_api_key — another key for a client, or its first one.
 *
 * In       p_overlap_seconds: how long the key it has now stays good, 0 to a week; the one before that
 *          ends now. p_token_version: only if it is still of this version, for who looked at it before
 * Out      until when the key it had stays good; null when it had none, or it ends now
 * Errors   PS404 · PS409 it is of another version · PS422 (overlap_seconds)
 * Locks    the client's row
 * Effects  its tokens stay
 */
create function pubsub.rotate_api_key(
    p_client_id uuid, p_api_key_hash text, p_overlap_seconds int default 0,
    p_token_version int default null
)
returns timestamptz
language plpgsql volatile
as $$
declare
    v_until timestamptz;
begin
    if p_overlap_seconds is null or p_overlap_seconds not between 0 and 604800 then
        perform pubsub.fail_validation(
            'overlap_seconds', 'overlap_seconds must be 0 to 604800');
    end if;
    perform pubsub.lock_client(p_client_id, p_token_version);
    update pubsub_data.clients c
    set api_key_hash = p_api_key_hash,
        previous_api_key_hash = case when p_overlap_seconds > 0 then c.api_key_hash end,
        previous_api_key_until = case when p_overlap_seconds > 0 and c.api_key_hash is not null
            then now() + make_interval(secs => p_overlap_seconds) end,
        updated_at = clock_timestamp()
    where c.client_id = p_client_id
    returning c.previous_api_key_until into v_until;
    return v_until;
end
$$;

comment on function pubsub.rotate_api_key is
    'Give a client another API key; the one it has stays good for the overlap.';
