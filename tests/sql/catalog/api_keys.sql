/* API keys of clients, and one in the place of another. */

do $$
declare
    c_proves constant text := 'a key is its client''s, with what the client may do now';
    c_id constant uuid := '01890000-0000-7000-8000-000000000001';
begin
    perform pubsub.create_client(c_id, 'name', 'topics:read', true, 'sha256$00', 'sha256$k');
    perform pubsub.create_client(gen_random_uuid(), 'without', '*', true, 'sha256$00');

    assert (select k::text from pubsub.api_key_credentials(array['sha256$k', 'sha256$x']) k)
        = '(sha256$k,' || c_id || ',topics:read,t,1)', c_proves;

    perform pubsub.update_client(c_id, 'name', '*', false);
    assert (select k::text from pubsub.api_key_credentials(array['sha256$k']) k)
        = '(sha256$k,' || c_id || ',*,f,2)', c_proves;

    perform pubsub.delete_client(c_id);
    assert (select count(*) from pubsub.api_key_credentials(array['sha256$k', null])) = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a secret is no key, and no key is two clients''';
begin
    perform pubsub.create_client(gen_random_uuid(), 'n', '*', true, 'sha256$01', 'sha256$k');

    assert (select count(*) from pubsub.api_key_credentials(array['sha256$01'])) = 0, c_proves;
    assert pg_temp.refusal($q$select pubsub.create_client(
        gen_random_uuid(), 'n', '*', true, 'sha256$02', 'sha256$k')$q$) like '23505 %', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a key ends at once when another takes its place without an overlap';
    c_id constant uuid := gen_random_uuid();
begin
    perform pubsub.create_client(c_id, 'n', '*', true, 'sha256$00');

    assert pubsub.rotate_api_key(c_id, 'sha256$first', 60) is null, c_proves;
    assert (select array_agg(k.api_key_hash) from pubsub.api_key_credentials(
        array['sha256$first', 'sha256$second']) k) = '{sha256$first}', c_proves;
    assert pubsub.rotate_api_key(c_id, 'sha256$second') is null, c_proves;
    assert (select array_agg(k.api_key_hash) from pubsub.api_key_credentials(
        array['sha256$first', 'sha256$second']) k) = '{sha256$second}', c_proves;
    assert (select c.token_version from pubsub.get_client(c_id) c) = 1, c_proves || ': tokens stay';
end
$$;

do $$
declare
    c_proves constant text := 'with an overlap both are good until it ends, and never three';
    c_id constant uuid := gen_random_uuid();
    c_all constant text[] := array['sha256$1', 'sha256$2', 'sha256$3'];
begin
    perform pubsub.create_client(c_id, 'n', '*', true, 'sha256$00', 'sha256$1');

    assert pubsub.rotate_api_key(c_id, 'sha256$2', 604800) = now() + interval '7 days', c_proves;
    assert (select array_agg(k.api_key_hash order by k.api_key_hash) from pubsub.api_key_credentials(c_all) k)
        = c_all[1:2], c_proves;
    perform pubsub.rotate_api_key(c_id, 'sha256$3', 1);
    assert (select array_agg(k.api_key_hash order by k.api_key_hash) from pubsub.api_key_credentials(c_all) k)
        = c_all[2:3], c_proves;
    update pubsub_data.clients c set previous_api_key_until = now() where c.client_id = c_id;
    assert (select array_agg(k.api_key_hash) from pubsub.api_key_credentials(c_all) k)
        = c_all[3:3], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a rotation that is refused changes nothing';
    c_id constant uuid := gen_random_uuid();
    v_overlap text;
begin
    perform pubsub.create_client(c_id, 'n', '*', true, 'sha256$00', 'sha256$1');

    foreach v_overlap in array array['-1', '604801', 'null'] loop
        assert pg_temp.refusal(
            format($q$select pubsub.rotate_api_key(%L, 'sha256$2', %s)$q$, c_id, v_overlap)
        ) = 'PS422(overlap_seconds) overlap_seconds must be 0 to 604800', c_proves || ': ' || v_overlap;
    end loop;
    assert pg_temp.refusal(format($q$select pubsub.rotate_api_key(%L, 'sha256$2', 0, 2)$q$, c_id))
        = 'PS409 The client was changed meanwhile, look at it again', c_proves;
    assert pg_temp.refusal($q$select pubsub.rotate_api_key(gen_random_uuid(), 'sha256$2')$q$)
        = 'PS404 Client not found', c_proves;
    assert (select count(*) from pubsub.api_key_credentials(array['sha256$1'])) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'keys are found through an index';
    v_plan text := '';
    v_line text;
begin
    set local enable_seqscan = off;
    for v_line in explain select c.client_id from pubsub_data.clients c
        where c.previous_api_key_hash = any(array['a', 'b'])
    loop
        v_plan := v_plan || v_line;
    end loop;
    assert v_plan like '%clients_previous_api_key_hash_unique%', c_proves || ': ' || v_plan;
end
$$;
