/*
 * Clients are applications that call the HTTP API, with the scopes they may use. token_version is in
 * every token that is issued to a client; a change of the client raises it, which revokes them.
 */

/* create_client — p_secret_hash is the hash, the secret itself is never stored. */
create function pubsub.create_client(
    p_client_id uuid, p_name text, p_scopes text, p_is_active boolean, p_secret_hash text
)
returns void
language sql volatile
as $$
    insert into pubsub_data.clients (client_id, name, scopes, is_active, secret_hash)
    values (p_client_id, p_name, p_scopes, p_is_active, p_secret_hash)
$$;

comment on function pubsub.create_client is 'Create a client with the hash of its secret.';

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
returns table (scopes text, is_active boolean, secret_hash text, token_version int)
language sql stable parallel safe
as $$
    select c.scopes, c.is_active, c.secret_hash, c.token_version
    from pubsub_data.clients c where c.client_id = p_client_id
$$;

comment on function pubsub.client_credentials is
    'What checking a secret or a token of a client needs; no row for an unknown client.';

/* list_clients — a page in creation order; p_after: only ids after it, which need not be there. */
create function pubsub.list_clients(
    p_offset bigint default 0, p_limit int default 10, p_after uuid default null
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
    order by c.client_id
    offset p_offset limit p_limit
$$;

comment on function pubsub.list_clients is 'A page of clients, in creation order.';

/*
 * update_client — replace a client's settings and revoke its tokens.
 *
 * Errors   PS404
 */
create function pubsub.update_client(
    p_client_id uuid, p_name text, p_scopes text, p_is_active boolean
)
returns table (
    id uuid, name text, scopes text, is_active boolean, token_version int,
    created_at timestamptz, updated_at timestamptz
)
language plpgsql volatile
as $$
begin
    return query
        update pubsub_data.clients c
        set name = p_name, scopes = p_scopes, is_active = coalesce(p_is_active, c.is_active),
            token_version = c.token_version + 1, updated_at = clock_timestamp()
        where c.client_id = p_client_id
        returning c.client_id, c.name, c.scopes, c.is_active, c.token_version, c.created_at,
            c.updated_at;
    if not found then
        raise exception 'Client not found' using errcode = 'PS404';
    end if;
end
$$;

comment on function pubsub.update_client is
    'Replace a client''s settings and revoke its tokens; is_active null keeps it as it is.';

/*
 * delete_client — and its tokens with it.
 *
 * Errors   PS404
 */
create function pubsub.delete_client(p_client_id uuid)
returns void
language plpgsql volatile
as $$
begin
    delete from pubsub_data.clients c where c.client_id = p_client_id;
    if not found then
        raise exception 'Client not found' using errcode = 'PS404';
    end if;
end
$$;

comment on function pubsub.delete_client is 'Delete a client; its tokens stop working.';
