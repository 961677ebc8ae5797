/* Deliveries are shared evenly between the values of the fairness key. */

/* share_fairly — a topic and a subscription that is shared between tenants. */
create function pg_temp.share_fairly(p_name text)
returns void
language plpgsql volatile
as $$
begin
    perform pubsub.create_topic(p_name);
    perform pubsub.create_subscription(p_name, p_name, '{"fairness_key": "tenant"}');
end
$$;

/* tenant_publish — messages of a tenant; null: without the attribute. */
create function pg_temp.tenant_publish(p_topic text, p_tenant text, p_messages int default 1)
returns uuid[]
language plpgsql volatile
as $$
declare
    v_ids uuid[];
begin
    select array_agg(p.message_id order by p.message_id) into v_ids
    from pubsub.publish_messages(p_topic,
        array_fill('{}'::jsonb, array[p_messages]),
        case when p_tenant is not null then
            array_fill(jsonb_build_object('tenant', p_tenant), array[p_messages]) end) p;
    -- what publishing does
    update pubsub_data.deliveries d set lane = coalesce(p_tenant, '')
    where d.message_id = any(v_ids) and d.lane is null;
    insert into pubsub_data.fair_lanes (topic_key, subscription_key, lane)
    select s.topic_key, s.subscription_key, coalesce(p_tenant, '')
    from pubsub_data.subscriptions s
    join pubsub_data.topics t on t.topic_key = s.topic_key
    where t.topic_id = p_topic
    on conflict do nothing;
    return v_ids;
end
$$;

/* chosen — the ids that choose_fair chooses, in its order; they are leased for a minute. */
create function pg_temp.chosen(p_subscription text, p_limit int)
returns uuid[]
language plpgsql volatile
as $$
declare
    v_claim constant pubsub.claim_terms := pubsub.claim_terms_of(p_subscription, null, 60);
    v_setting constant text := pubsub.hint_name('claim', v_claim.subscription_key);
    v_hint pubsub.claim_hint;
    v_chosen record;
    v_ids uuid[];
begin
    v_hint := pubsub.believed_hint(
        v_claim, nullif(current_setting(v_setting, true), '')::pubsub.claim_hint, null);
    v_chosen := pubsub.choose_fair(v_claim,
        pubsub.id_at(v_claim.now - interval '1 day'), p_limit, v_hint);
    v_hint := v_chosen.hint;
    v_hint.noted_at := v_claim.micros;
    perform set_config(v_setting, v_hint::text, false);
    select array_agg(d.message_id order by p.position) into v_ids
    from unnest(v_chosen.places) with ordinality as p (place, position)
    join pubsub_data.deliveries d on d.ctid = p.place;
    update pubsub_data.deliveries d
    set visible_at = clock_timestamp() + interval '1 minute', attempts = d.attempts + 1, lease = 1,
        leased_at = clock_timestamp(), consumer_id = 'c'
    where d.ctid = any(v_chosen.places);
    insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
    select v_claim.topic_key, v_claim.subscription_key,
        clock_timestamp() + interval '1 minute', v_ids
    where v_ids is not null;
    return coalesce(v_ids, '{}');
end
$$;

/* tenants — whose messages ids are, in their order. */
create function pg_temp.tenants(p_ids uuid[])
returns text[]
language sql volatile
as $$
    select coalesce(array_agg(d.lane order by i.position), '{}')
    from unnest(p_ids) with ordinality as i (id, position)
    join pubsub_data.deliveries d on d.message_id = i.id
$$;

/* tally — how many of each: "tenant count". */
create function pg_temp.tally(p_tenants text[])
returns text[]
language sql volatile
as $$
    select coalesce(array_agg(t.tenant || ' ' || t.messages order by t.tenant), '{}')
    from (
        select x.tenant, count(*) as messages from unnest(p_tenants) as x (tenant) group by x.tenant
    ) t
$$;

do $$
declare
    c_proves constant text := 'quiet tenants behind 10,000 messages of another come in the first round';
    v_first text[];
begin
    perform pg_temp.share_fairly('noisy-1');
    perform pg_temp.share_fairly('noisy-10');
    perform pg_temp.tenant_publish('noisy-1', 'noisy', 5000);
    perform pg_temp.tenant_publish('noisy-10', 'noisy', 5000);
    for v_tenant in 1 .. 9 loop
        perform pg_temp.tenant_publish('noisy-1', 'quiet-' || v_tenant, 3);
        perform pg_temp.tenant_publish('noisy-10', 'quiet-' || v_tenant, 3);
    end loop;

    for v_claim in 1 .. 10 loop
        v_first := v_first || pg_temp.tenants(pg_temp.chosen('noisy-1', 1));
    end loop;
    assert pg_temp.tally(v_first) = array['noisy 1'] || array(
        select format('quiet-%s 1', n) from generate_series(1, 9) n), c_proves || ': claims of one';
    v_first := pg_temp.tenants(pg_temp.chosen('noisy-10', 10));
    assert pg_temp.tally(v_first) = array['noisy 1'] || array(
        select format('quiet-%s 1', n) from generate_series(1, 9) n), c_proves || ': of ten';
    -- the quiet ones have two left: the noisy one has the rest
    v_first := pg_temp.tenants(pg_temp.chosen('noisy-10', 100));
    assert pg_temp.tally(v_first) = array['noisy 82'] || array(
        select format('quiet-%s 2', n) from generate_series(1, 9) n), c_proves || ': of a hundred';
end
$$;

do $$
declare
    c_proves constant text := 'sessions that start anew with each claim do not all serve one lane';
    v_served text[];
begin
    perform pg_temp.share_fairly('anew');
    perform pg_temp.tenant_publish('anew', 'a', 200);
    perform pg_temp.tenant_publish('anew', 'b', 200);
    for v_claim in 1 .. 100 loop
        perform pg_temp.reconnect('anew');
        v_served := v_served || pg_temp.tenants(pg_temp.chosen('anew', 1));
    end loop;

    assert cardinality(v_served) = 100, c_proves;
    -- by chance once in 10^16
    assert (select count(*) between 10 and 90 from unnest(v_served) as s (tenant)
        where s.tenant = 'a'), c_proves || pg_temp.tally(v_served)::text;
end
$$;

do $$
declare
    c_proves constant text := 'shares are even while all have a backlog, whatever the claims want';
    v_ids uuid[] := '{}';
    v_counts int[];
    v_size int;
begin
    perform pg_temp.share_fairly('even');
    for v_tenant in 1 .. 7 loop
        perform pg_temp.tenant_publish('even', 't' || v_tenant, 300);
    end loop;

    foreach v_size in array array[1, 10, 3, 50, 1, 1, 100, 7, 8, 13, 200] loop
        v_ids := v_ids || pg_temp.chosen('even', v_size);
        select array_agg(t.messages) into v_counts from (
            select count(*) as messages from unnest(pg_temp.tenants(v_ids)) as x (tenant)
            group by x.tenant
        ) t;
        assert (select max(c.n) - min(c.n) <= 1 from unnest(v_counts) as c (n)),
            format('%s: %s', c_proves, v_counts);
    end loop;

    assert cardinality(v_ids) = 394, c_proves;
    assert (select count(distinct i.id) = 394 from unnest(v_ids) as i (id)), c_proves;
    -- in publish order within a lane
    assert not exists (
        select from (
            select i.id, lag(i.id) over (partition by d.lane order by i.position) as before
            from unnest(v_ids) with ordinality as i (id, position)
            join pubsub_data.deliveries d on d.message_id = i.id
        ) o where o.before > o.id
    ), c_proves || ': order';
end
$$;

do $$
declare
    c_proves constant text := 'everything is handed out once, more lanes than a claim looks at included';
    v_ids uuid[] := '{}';
    v_got uuid[];
begin
    perform pg_temp.share_fairly('many');
    perform pg_temp.tenant_publish('many', null, 5);
    for v_tenant in 1 .. 300 loop
        perform pg_temp.tenant_publish('many', 'tenant ' || v_tenant, 1 + v_tenant % 3);
    end loop;
    loop
        v_got := pg_temp.chosen('many', 17);
        exit when v_got = '{}';
        v_ids := v_ids || v_got;
    end loop;

    assert (
        select count(*) = cardinality(v_ids) and bool_and(d.attempts = 1)
        from pubsub_data.deliveries d
        join pubsub_data.subscriptions s on s.subscription_key = d.subscription_key
        where s.subscription_id = 'many'
    ), c_proves;
    assert octet_length(current_setting(pubsub.hint_name('fair', (
        select k.subscription_key from pubsub.subscription_keys('many') k)))) < 20000,
        c_proves || ': what the session notes stays small';
    -- one of the many lanes has something: found though only some are looked at
    v_got := pg_temp.tenant_publish('many', 'tenant 200', 2);
    assert pg_temp.chosen('many', 10) = v_got, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'retries leave half of the claims to lanes, and have all when those are empty';
    v_failed uuid[];
    v_quiet uuid[];
    v_got uuid[] := '{}';
begin
    perform pg_temp.share_fairly('failing');
    v_failed := pg_temp.tenant_publish('failing', 'failing', 40);
    perform pg_temp.chosen('failing', 40);
    update pubsub_data.deliveries d set visible_at = clock_timestamp()
    where d.message_id = any(v_failed);
    update pubsub_data.wakeups w set due_at = clock_timestamp()
    where w.message_ids && v_failed;
    v_quiet := pg_temp.tenant_publish('failing', 'quiet', 10);

    v_got := pg_temp.chosen('failing', 10);
    assert pg_temp.tally(pg_temp.tenants(v_got)) = '{failing 5,quiet 5}', c_proves || pg_temp.tally(pg_temp.tenants(v_got))::text;
    for v_claim in 1 .. 4 loop
        v_got := v_got || pg_temp.chosen('failing', 1);
    end loop;
    assert pg_temp.tally(pg_temp.tenants(v_got)) = '{failing 7,quiet 7}', c_proves || ': of one';
    v_got := v_got || pg_temp.chosen('failing', 100);
    assert (select count(distinct i.id) = 50 from unnest(v_got) as i (id))
        and cardinality(v_got) = 50, c_proves || ': all';
    assert not exists (select from pubsub_data.deliveries d
        where d.message_id = any(v_failed) and d.attempts <> 2), c_proves;
    -- of messages that were published long ago
    with old as (
        insert into pubsub_data.deliveries (
            topic_key, subscription_key, message_id, lane, attempts, visible_at
        )
        select k.topic_key, k.subscription_key,
            pubsub.id_at(clock_timestamp() - n * interval '1 hour'), 'failing', 1, clock_timestamp()
        from pubsub.subscription_keys('failing') k, generate_series(1, 4) n
        returning topic_key, subscription_key, message_id
    )
    insert into pubsub_data.wakeups (topic_key, subscription_key, due_at, message_ids)
    select o.topic_key, o.subscription_key, clock_timestamp(), array_agg(o.message_id)
    from old o
    group by o.topic_key, o.subscription_key;
    for v_claim in 1 .. 2 loop
        assert cardinality(pg_temp.chosen('failing', 1)) = 1, c_proves || ': old ones';
    end loop;
    assert cardinality(pg_temp.chosen('failing', 3)) = 2, c_proves || ': old ones';
end
$$;

do $$
declare
    c_proves constant text := 'a value that is not listed is still delivered, while others have a backlog';
    v_unlisted uuid[];
    v_got uuid[] := '{}';
begin
    perform pg_temp.share_fairly('unlisted');
    perform pg_temp.tenant_publish('unlisted', 'a', 2000);
    v_unlisted := pg_temp.tenant_publish('unlisted', 'b', 2);
    delete from pubsub_data.fair_lanes f where f.lane = 'b';

    for v_claim in 1 .. 100 loop
        exit when v_got @> v_unlisted;
        v_got := v_got || pg_temp.chosen('unlisted', 2);
        perform pg_sleep(0.002);
    end loop;
    assert v_got @> v_unlisted, c_proves;
    -- and at once where nothing else is waiting
    perform pg_temp.share_fairly('unlisted-2');
    v_unlisted := pg_temp.tenant_publish('unlisted-2', 'b', 2);
    delete from pubsub_data.fair_lanes f where f.lane = 'b';
    assert pg_temp.chosen('unlisted-2', 2) = v_unlisted, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'messages below what was read of their lane are found: late ones';
    v_late uuid[];
    v_got uuid[] := '{}';
    v_keys record;
begin
    perform pg_temp.share_fairly('late');
    v_keys := pubsub.subscription_keys('late');
    -- as if their publisher had not committed yet
    v_late := pg_temp.tenant_publish('late', 'a', 2) || pg_temp.tenant_publish('late', 'b', 1);
    update pubsub_data.deliveries d set subscription_key = -1 where d.message_id = any(v_late);
    perform pg_temp.tenant_publish('late', 'a', 2000);
    perform pg_temp.chosen('late', 10);
    update pubsub_data.deliveries d set subscription_key = v_keys.subscription_key
    where d.message_id = any(v_late);

    for v_claim in 1 .. 400 loop
        exit when v_got @> v_late;
        v_got := v_got || pg_temp.chosen('late', 4);
        perform pg_sleep(0.002);
    end loop;
    assert v_got @> v_late, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'messages that a rewind brought back are found';
    v_ids uuid[];
begin
    perform pg_temp.share_fairly('rewound');
    v_ids := pg_temp.tenant_publish('rewound', 'a', 3) || pg_temp.tenant_publish('rewound', 'b', 3);
    assert cardinality(pg_temp.chosen('rewound', 10)) = 6, c_proves;
    update pubsub_data.deliveries d
    set visible_at = '-infinity', lease = null, attempts = 0
    where d.message_id = any(v_ids);
    delete from pubsub_data.wakeups w where w.message_ids && v_ids;
    update pubsub_data.subscriptions s
    set rewinds = s.rewinds + 1, rewound_to = '00000000-0000-0000-0000-000000000000'
    where s.subscription_id = 'rewound';

    assert pg_temp.tally(pg_temp.tenants(pg_temp.chosen('rewound', 4))) = '{a 2,b 2}', c_proves;
    assert pg_temp.tally(pg_temp.tenants(pg_temp.chosen('rewound', 4))) = '{a 1,b 1}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'take_from_lanes tells what it has read, and leaves out what was taken';
    v_ids uuid[];
    v_first record;
    v_second record;
begin
    perform pg_temp.share_fairly('lanes');
    v_ids := pg_temp.tenant_publish('lanes', 'a', 3) || pg_temp.tenant_publish('lanes', 'b', 1);
    v_first := pubsub.take_from_lanes(pubsub.claim_terms_of('lanes', null, 60),
        '00000000-0000-0000-0000-000000000000', 3, '{}', '{}', 'a');
    -- b, a, then a again
    assert array(
        select d.message_id from unnest(v_first.places) with ordinality as p (place, position)
        join pubsub_data.deliveries d on d.ctid = p.place order by p.position
    ) = array[v_ids[4], v_ids[1], v_ids[2]], c_proves;
    assert v_first.last = 'a' and not v_first.complete, c_proves;
    assert v_first.heads ->> pubsub.lane_mark('a') = v_ids[2]::text, c_proves;

    v_second := pubsub.take_from_lanes(pubsub.claim_terms_of('lanes', null, 60),
        '00000000-0000-0000-0000-000000000000', 3, v_first.places, '{}', 'a');
    assert array(
        select d.message_id from unnest(v_second.places) as p (place)
        join pubsub_data.deliveries d on d.ctid = p.place
    ) = v_ids[3:3] and v_second.complete, c_proves;
    assert pubsub.lane_mark(repeat('x', 10000)) ~ '^[0-9a-f]{16}$', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'lanes without messages leave the list after an hour, a batch a call';
    v_keys record;
begin
    delete from pubsub_data.fair_lanes;
    perform pg_temp.share_fairly('lists');
    perform pg_temp.tenant_publish('lists', 'live', 1);
    v_keys := pubsub.subscription_keys('lists');
    insert into pubsub_data.fair_lanes (topic_key, subscription_key, lane)
    select v_keys.topic_key, v_keys.subscription_key, 'old ' || n from generate_series(1, 4) n;
    assert pubsub.cleanup_fair_lanes() = 0, c_proves || ': too young';

    update pubsub_data.fair_lanes f set created_at = f.created_at - interval '61 minutes'
    where f.lane <> 'old 4';
    assert pubsub.cleanup_fair_lanes(3) = 3, c_proves;
    assert pubsub.cleanup_fair_lanes(3) = 1, c_proves;
    assert pubsub.cleanup_fair_lanes(3) = 0, c_proves;
    assert array(select f.lane from pubsub_data.fair_lanes f order by f.lane)
        = array['live', 'old 4'], c_proves;
    assert cardinality(pg_temp.chosen('lists', 1)) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'consume_messages shares fairly, several consumers in one call too';
    v_got text[];
begin
    perform pg_temp.share_fairly('consumed');
    perform pg_temp.tenant_publish('consumed', 'noisy', 100);
    perform pg_temp.tenant_publish('consumed', 'quiet', 3);
    perform pg_temp.tenant_publish('consumed', null, 3);

    assert pg_temp.tally(pg_temp.tenants(pg_temp.claim('consumed', 6)))
        = '{" 2","noisy 2","quiet 2"}', c_proves;
    select array_agg(c.consumer || ' ' || d.lane order by c.consumer, d.lane) into v_got
    from pubsub.consume_messages_for('consumed', '{a,b}', '{3,3}') c
    join pubsub_data.deliveries d on d.message_id = c.message_id;
    assert v_got = array['1 ', '1 noisy', '1 quiet', '2 noisy', '2 noisy', '2 noisy'],
        c_proves || v_got::text;
    update pubsub_data.subscriptions s set max_in_flight = 16
    where s.subscription_id = 'consumed';
    -- what is held already has a consumer now
    perform pubsub.recount_messages('consumed');
    assert cardinality(pg_temp.claim('consumed', 100)) = 4, c_proves || ': within limits';
    -- what was nacked comes again, and one more
    update pubsub_data.subscriptions s set max_in_flight = 17
    where s.subscription_id = 'consumed';
    perform pubsub.nack_messages('consumed', array(
        select d.message_id from pubsub_data.deliveries d where d.lane = 'quiet'));
    perform pg_temp.later('consumed', '30 seconds');
    v_got := pg_temp.tally(pg_temp.tenants(pg_temp.claim('consumed', 100)));
    assert v_got = '{"noisy 1","quiet 3"}', format('%s: retries: %s', c_proves, v_got);
    assert pubsub.recount_messages('consumed') = 0, c_proves;
end
$$;
