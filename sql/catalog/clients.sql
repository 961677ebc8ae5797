/*
 * Clients are applications that call the HTTP API, with the scopes they may use. token_version is in
 * every token that is issued to a client; a change of the client raises it, which revokes them.
 */

/* create_client — p_secret_hash and p_api_key_hash are hashes, what they are of is never stored. */
create function pubsub.create_client(
    p_client_id uuid, p_name text, p_scopes text, p_is_active boolean, p_secret_hash text,
    p_api_key_hash text default null
)
returns void
language sql volatile
as $$
    insert into pubsub_data.clients (
        client_id, name, scopes, is_active, secret_hash, api_key_hash
    )
    values (p_client_id, p_name, p_scopes, p_is_active, p_secret_hash, p_api_key_hash)
$$;

comment on function pubsub.create_client is 'Create a client with the hash of its secret, and perhaps of an API key.';

/*
 * get_client
 *
 * Errors   PS404
 */
create function pubsub.get_client(p_client_id uuid)
returns table (
    id uuid, name text, scopes text, is_active boolean, token_version int,
    created_at timestamptz, updated_at timestamptz
)
language plpgsql stable parallel safe
as $$
begin
    return query
        select c.client_id, c.name, c.scopes, c.is_active, c.token_version, c.created_at,
            c.updated_at
        from pubsub_data.clients c where c.client_id = p_client_id;
    if not found then
        raise exception 'Client not found' using errcode = 'PS404';
    end if;
end
$$;

comment on function pubsub.get_client is 'One client by its id, without its secret.';

/* client_credentials — what checking a secret or a token needs; no row for an unknown client. */
create function pubsub.client_credentials(p_client_id uuid)
returns table (
    scopes text, is_active boolean, secret_hash text, token_version int, created_at timestamptz
)
language sql stable parallel safe
as $$
    select c.scopes, c.is_active, c.secret_hash, c.token_version, c.created_at
    from pubsub_data.clients c where c.client_id = p_client_id
$$;

comment on function pubsub.client_credentials is
    'What checking a secret or a token of a client needs; no row for an unknown client.';

/*
 * renew_secret_hash — store another hash of the same secret; its tokens stay.
 *
 * Out      whether it was: not when the stored hash is another one by now
 */
create function pubsub.renew_secret_hash(p_client_id uuid, p_stored text, p_secret_hash text)
returns boolean
language sql volatile
as $$
    with renewed as (
        update pubsub_data.clients c
        set secret_hash = p_secret_hash
        where c.client_id = p_client_id and c.secret_hash = p_stored
        returning 1
    )
    select exists (select from renewed)
$$;

comment on function pubsub.renew_secret_hash is
    'Store another hash of a client''s secret, unless the stored one has changed.';

/* slow_hashes_exist — those of the Python original, which take tenths of a second to check. */
create function pubsub.slow_hashes_exist()
returns boolean
language sql stable parallel safe
begin atomic
    select exists (
        select from pubsub_data.clients c where not starts_with(c.secret_hash, 'sha256$')
    );
end;

comment on function pubsub.slow_hashes_exist is
    'Whether the secret of some client has a hash that is slow to check.';

/*
 * list_clients — a page in creation order.
 *
 * In       p_after: only ids after it, which need not be there; p_allowed: only what matches it
 *          (matches_any)
 */
create function pubsub.list_clients(
    p_offset bigint default 0, p_limit int default 10, p_after uuid default null,
    p_allowed text[] default null
)
returns table (
    id uuid, name text, scopes text, is_active boolean, token_version int,
    created_at timestamptz, updated_at timestamptz
)
language sql stable parallel safe
as $$
    select c.client_id, c.name, c.scopes, c.is_active, c.token_version, c.created_at, c.updated_at
    from pubsub_data.clients c
    where c.client_id > coalesce(p_after, '00000000-0000-0000-0000-000000000000')
        and pubsub.matches_any(c.client_id::text, p_allowed)
    order by c.client_id
    offset p_offset limit p_limit
$$;

comment on function pubsub.list_clients is 'A page of clients, in creation order.';

/*
 * lock_client — of this version, if one is named.
 *
 * Errors   PS404 · PS409 it is of another version
 * Locks    the client's row
 */
create function pubsub.lock_client(p_client_id uuid, p_token_version int)
returns void
language plpgsql volatile
as $$
declare
    v_version int;
begin
    select c.token_version into v_version
    from pubsub_data.clients c where c.client_id = p_client_id for update;
    if not found then
        raise exception 'Client not found' using errcode = 'PS404';
    end if;
    if v_version <> p_token_version then
        raise exception 'The client was changed meanwhile, look at it again' using errcode = 'PS409';
    end if;
end
$$;

comment on function pubsub.lock_client is
    'Lock a client; refuse it when it is of another version than the one named.';

/*
 * update_client — replace a client's settings and revoke its tokens.
 *
 * In       p_token_version: only if it is still of this version, for who looked at it before
 * Errors   PS404 · PS409 it is of another version
 */
create function pubsub.update_client(
    p_client_id uuid, p_name text, p_scopes text, p_is_active boolean,
    p_token_version int default null
)
returns table (
    id uuid, name text, scopes text, is_active boolean, token_version int,
    created_at timestamptz, updated_at timestamptz
)
language plpgsql volatile
as $$
begin
    perform pubsub.lock_client(p_client_id, p_token_version);
    return query
        update pubsub_data.clients c
        set name = p_name, scopes = p_scopes, is_active = coalesce(p_is_active, c.is_active),
            token_version = c.token_version + 1, updated_at = clock_timestamp()
        where c.client_id = p_client_id
        returning c.client_id, c.name, c.scopes, c.is_active, c.token_version, c.created_at,
            c.updated_at;
end
$$;

comment on function pubsub.update_client is
    'Replace a client''s settings and revoke its tokens; is_active null keeps it as it is.';

/*
 * delete_client — and its tokens with it.
 *
 * In       p_token_version: only if it is still of this version, for who looked at it before
 * Errors   PS404 · PS409 it is of another version
 */
create function pubsub.delete_client(p_client_id uuid, p_token_version int default null)
returns void
language plpgsql volatile
as $$
begin
    perform pubsub.lock_client(p_client_id, p_token_version);
    delete from pubsub_data.clients c where c.client_id = p_client_id;
end
$$;

comment on function pubsub.delete_client is 'Delete a client; its tokens stop working.';
