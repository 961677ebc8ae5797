/* Clients and the versions of their tokens. */

do $$
declare
    c_proves constant text := 'a created client is found, without its secret';
    c_id constant uuid := '01890000-0000-7000-8000-000000000001';
    v_started_at timestamptz := clock_timestamp();
    v_client record;
begin
    perform pubsub.create_client(c_id, 'name', 'topics:read *', true, 'sha256$00');

    select * into v_client from pubsub.get_client(c_id);

    assert v_client.id = c_id and v_client.name = 'name', c_proves;
    assert v_client.scopes = 'topics:read *' and v_client.is_active, c_proves;
    assert v_client.token_version = 1, c_proves;
    assert v_client.created_at between v_started_at and clock_timestamp(), c_proves;
    assert v_client.updated_at between v_client.created_at and clock_timestamp(), c_proves;
    assert v_client::text not like '%sha256%', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'credentials are what was stored; an unknown client has none';
    c_id constant uuid := '01890000-0000-7000-8000-000000000002';
begin
    perform pubsub.create_client(c_id, 'name', '*', false, 'sha256$00');

    assert (select c::text from pubsub.client_credentials(c_id) c) like '(*,f,sha256$00,1,%', c_proves;
    assert (select count(*) from pubsub.client_credentials(gen_random_uuid())) = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'an update replaces the settings and raises the version of the tokens';
    c_id constant uuid := '01890000-0000-7000-8000-000000000003';
    v_created record;
    v_updated record;
begin
    perform pubsub.create_client(c_id, 'name', '*', true, 'sha256$00');
    select * into v_created from pubsub.get_client(c_id);

    select * into v_updated from pubsub.update_client(c_id, 'new', 'topics:read', false);

    assert v_updated.name = 'new' and v_updated.scopes = 'topics:read', c_proves;
    assert not v_updated.is_active and v_updated.token_version = 2, c_proves;
    assert v_updated.created_at = v_created.created_at, c_proves;
    assert v_updated.updated_at > v_created.updated_at, c_proves;
    assert (select g::text from pubsub.get_client(c_id) g) = v_updated::text, c_proves;
    assert (select c.secret_hash from pubsub.client_credentials(c_id) c) = 'sha256$00', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an update that does not say so leaves a client on or off';
    c_id constant uuid := '01890000-0000-7000-8000-000000000004';
    v_is_active boolean;
begin
    foreach v_is_active in array array[true, false] loop
        perform pubsub.create_client(c_id, 'name', '*', v_is_active, 'sha256$00');
        assert (
            select u.is_active = v_is_active from pubsub.update_client(c_id, 'new', '*', null) u
        ), c_proves || ': ' || v_is_active;
        perform pubsub.delete_client(c_id);
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'a deleted client has no credentials any more';
    c_id constant uuid := '01890000-0000-7000-8000-000000000005';
begin
    perform pubsub.create_client(c_id, 'name', '*', true, 'sha256$00');

    perform pubsub.delete_client(c_id);

    assert (select count(*) from pubsub.client_credentials(c_id)) = 0, c_proves;
    assert pg_temp.refusal(format('select pubsub.get_client(%L)', c_id))
        = 'PS404 Client not found', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an unknown client is PS404 for get, update and delete';
    v_arguments text;
begin
    foreach v_arguments in array array[
        'get_client(gen_random_uuid())', 'delete_client(gen_random_uuid())',
        $q$update_client(gen_random_uuid(), 'name', '*', true)$q$
    ] loop
        assert pg_temp.refusal('select pubsub.' || v_arguments) = 'PS404 Client not found',
            c_proves || ': ' || v_arguments;
    end loop;
end
$$;

do $$
declare
    c_proves constant text :=
        'clients are listed in creation order, which is id order, page by page';
    c_ids constant uuid[] := array(
        select ('01890000-0000-7000-8000-00000000000' || n)::uuid from generate_series(1, 5) n
    );
    v_n int;
begin
    delete from pubsub_data.clients;
    foreach v_n in array array[3, 1, 5, 2, 4] loop
        perform pubsub.create_client(c_ids[v_n], 'name', '*', true, 'sha256$00');
    end loop;

    assert array(select l.id from pubsub.list_clients() l) = c_ids, c_proves;
    assert array(select l.id from pubsub.list_clients(1, 2) l) = c_ids[2:3], c_proves;
    assert array(select l.id from pubsub.list_clients(5, 2) l) = '{}', c_proves;
    assert (select l::text from pubsub.list_clients(0, 1) l)
        = (select g::text from pubsub.get_client(c_ids[1]) g), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a client is changed only while it is of the version that was looked at';
    c_id constant uuid := gen_random_uuid();
begin
    perform pubsub.create_client(c_id, 'name', '*', true, 'sha256$00');

    assert pg_temp.refusal(format($q$select pubsub.update_client(%L, 'n', '*', true, 2)$q$, c_id))
        = 'PS409 The client was changed meanwhile, look at it again', c_proves;
    assert pg_temp.refusal(format('select pubsub.delete_client(%L, 2)', c_id))
        = 'PS409 The client was changed meanwhile, look at it again', c_proves;
    perform pubsub.update_client(c_id, 'n', '*', true, 1);
    assert pg_temp.refusal(format('select pubsub.lock_client(%L, 1)', c_id))
        = 'PS409 The client was changed meanwhile, look at it again', c_proves;
    perform pubsub.delete_client(c_id, 2);
end
$$;

do $$
declare
    c_proves constant text := 'a slow hash is seen until another one of the same secret takes its place';
    c_id constant uuid := gen_random_uuid();
begin
    perform pubsub.create_client(c_id, 'name', '*', true, '$argon2id$x');

    assert pubsub.slow_hashes_exist(), c_proves;
    assert not pubsub.renew_secret_hash(c_id, 'another', 'sha256$00'), c_proves;
    assert pubsub.renew_secret_hash(c_id, '$argon2id$x', 'sha256$00'), c_proves;
    assert not pubsub.slow_hashes_exist(), c_proves;
    assert (select c.secret_hash from pubsub.client_credentials(c_id) c) = 'sha256$00', c_proves;
    assert (select g.token_version from pubsub.get_client(c_id) g) = 1, c_proves;
end
$$;
