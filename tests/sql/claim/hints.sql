/* What claims note in their session: unreadable or of another time, it costs no message. */

/* stock_mode — a subscription of a mode, which has claimed and acked once, and two messages in it. */
create function pg_temp.stock_mode(p_name text, p_mode text)
returns uuid[]
language plpgsql volatile
as $$
begin
    perform pg_temp.stock(p_name);
    update pubsub_data.subscriptions s
    set enable_ordering = p_mode = 'ordered', has_priorities = p_mode = 'urgent',
        fairness_key = case p_mode when 'fair' then 'tenant' end
    where s.subscription_id = p_name;
    perform pg_temp.publish_in_mode(p_name, p_mode);
    perform pubsub.ack_messages(p_name, pg_temp.claim(p_name));
    return pg_temp.publish_in_mode(p_name, p_mode);
end
$$;

create function pg_temp.publish_in_mode(p_name text, p_mode text)
returns uuid[]
language sql volatile
as $$
    select array_agg(p.message_id order by p.message_id)
    from pubsub.publish_messages(p_name, array['{"n": 1}', '{"n": 2}']::jsonb[],
        p_attributes => array['{"tenant": "a"}', '{"tenant": "b"}']::jsonb[],
        p_ordering_keys => array['k', 'k'],
        p_priorities => case p_mode when 'urgent' then array[5, 5]::smallint[] end) p
$$;

/* found — claim and ack until nothing has come for a while; the ids. */
create function pg_temp.found(p_subscription text, p_messages int)
returns uuid[]
language plpgsql volatile
as $$
declare
    v_found uuid[] := '{}';
    v_got uuid[];
    v_until timestamptz := clock_timestamp() + interval '10 s';
begin
    while cardinality(v_found) < p_messages and clock_timestamp() < v_until loop
        v_got := pg_temp.claim(p_subscription);
        perform pubsub.ack_messages(p_subscription, v_got);
        v_found := v_found || v_got;
        perform pg_sleep(0.005) where v_got = '{}';
    end loop;
    return array(select f from unnest(v_found) f order by f);
end
$$;

do $$
declare
    c_proves constant text := 'a hint that cannot be read is forgotten: the claim finds what is there';
    v_case record;
    v_ids uuid[];
begin
    for v_case in
        select m.kind, format('%s.%s', m.kind, g.position) as name, g.garbage
        from unnest(array['claim', 'urgent', 'ordered', 'fair']) as m (kind)
        cross join unnest(array[
            'garbage', '()', '(', '(1)', '{}', 'null', '(,,,,,,,,,,)', '(,,,)', '(,,,,,,,,,)',
            '(,,,,,,,,,,,,)', '(a,b,c,d,e,f,g,h,i,j,k)',
            '(9,0,"{""x"": ""y""}",9)',
            '(9,0,a,"{""0cc175b9c0f1b6a8"": ""no id""}",00000000-0000-0000-0000-000000000000,9,9,9,9,9,'
                '00000000-0000-0000-0000-000000000000,1,0)',
            '(9,0,a,"[]",00000000-0000-0000-0000-000000000000,9,9,9,9,9,'
                '00000000-0000-0000-0000-000000000000,1,0)',
            '(-1,0,00000000-0000-0000-0000-000000000000,-9223372036854775808,0,0,0,0,'
                '00000000-0000-0000-0000-000000000000,-5,-7)',
            '(9,0,00000000-0000-0000-0000-000000000000,9,9223372036854775807,9,9,9,'
                '00000000-0000-0000-0000-000000000000,2147483647,2147483647)',
            'ffffffff-ffff-ffff-ffff-ffffffffffff|11/29/2026 10:00:00 CST|2000-01-01|2000-01-01|'
                '2000-01-01|2000-01-01|ffffffff-ffff-ffff-ffff-ffffffffffff|1|0'
        ]) with ordinality as g (garbage, position)
    loop
        v_ids := pg_temp.stock_mode(v_case.name, v_case.kind);
        perform set_config(pubsub.hint_name(v_case.kind, k.subscription_key), v_case.garbage, false)
        from pubsub.subscription_keys(v_case.name) k;

        assert pg_temp.found(v_case.name, 2) = v_ids,
            format('%s: %s %s', c_proves, v_case.name, v_case.garbage);
    end loop;
end
$$;

/* postpone_hints — let a session have noted everything that much later. */
create function pg_temp.postpone_hints(p_subscription text, p_by interval)
returns void
language plpgsql volatile
as $$
declare
    v_by bigint := extract(epoch from p_by) * 1000000;
    v_key bigint := (select k.subscription_key from pubsub.subscription_keys(p_subscription) k);
    v_head uuid := pubsub.id_at(clock_timestamp() + p_by);
    v_claim pubsub.claim_hint :=
        nullif(current_setting(pubsub.hint_name('claim', v_key), true), '')::pubsub.claim_hint;
    v_urgent pubsub.urgent_hint :=
        nullif(current_setting(pubsub.hint_name('urgent', v_key), true), '')::pubsub.urgent_hint;
    v_ordered pubsub.ordered_hint :=
        nullif(current_setting(pubsub.hint_name('ordered', v_key), true), '')::pubsub.ordered_hint;
    v_fair pubsub.fair_hint :=
        nullif(current_setting(pubsub.hint_name('fair', v_key), true), '')::pubsub.fair_hint;
begin
    v_claim.noted_at := v_claim.noted_at + v_by;
    v_claim.head := v_head;
    v_claim.due_from := v_claim.due_from + v_by;
    v_claim.due_all_at := v_claim.due_all_at + v_by;
    v_claim.near_at := v_claim.near_at + v_by;
    v_claim.far_at := v_claim.far_at + v_by;
    perform set_config(pubsub.hint_name('claim', v_key), v_claim::text, false);
    v_urgent.noted_at := v_urgent.noted_at + v_by;
    v_urgent.look_back_at := v_urgent.look_back_at + v_by;
    v_urgent.heads := array_fill(v_head, array[9]);
    perform set_config(pubsub.hint_name('urgent', v_key), v_urgent::text, false);
    v_ordered.noted_at := v_ordered.noted_at + v_by;
    v_ordered.tail := v_head;
    v_ordered.sweep_at := v_ordered.sweep_at + v_by;
    v_ordered.near_at := v_ordered.near_at + v_by;
    perform set_config(pubsub.hint_name('ordered', v_key), v_ordered::text, false);
    v_fair.noted_at := v_fair.noted_at + v_by;
    v_fair.heads := (select jsonb_object_agg(h.mark, v_head)
        from jsonb_object_keys(v_fair.heads) as h (mark));
    perform set_config(pubsub.hint_name('fair', v_key), v_fair::text, false);
end
$$;

do $$
declare
    c_proves constant text :=
        'what was noted before the clock was set back is forgotten, however far it was set back';
    v_mode text;
    v_step interval;
    v_name text;
    v_ids uuid[];
begin
    foreach v_mode in array array['claim', 'urgent', 'ordered', 'fair'] loop
        foreach v_step in array array['60 s', '400 days']::interval[] loop
            v_name := v_mode || extract(epoch from v_step)::int;
            v_ids := pg_temp.stock_mode(v_name, v_mode);
            -- as if all of it had been noted that much later
            perform pg_temp.postpone_hints(v_name, v_step);
            update pubsub_data.wakeups w
            set due_at = w.due_at + v_step, head = pubsub.id_at(clock_timestamp() + v_step)
            from pubsub.subscription_keys(v_name) k
            where w.topic_key = k.topic_key and w.subscription_key = k.subscription_key;
            update pubsub_data.subscriptions s set created_at = s.created_at + v_step
            where s.subscription_id = v_name;

            assert pg_temp.found(v_name, 2) = v_ids, format('%s: %s', c_proves, v_name);
        end loop;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'a head that lies ahead is not believed, whoever passes it on';
    v_ids uuid[] := pg_temp.stock_mode('ahead', 'claim');
begin
    assert (
        select array_agg(c.message_id) = v_ids
        from pubsub.consume_messages_for('ahead', array['c'], array[10],
            p_head => pubsub.id_at(clock_timestamp() + interval '1 hour'), p_rewinds => 0) c
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'messages of before the clock was set back do not hide those that were published since';
    v_mode text;
    v_name text;
    v_old uuid[];
    v_new uuid[];
    v_prefix text := left(pubsub.id_at(clock_timestamp() + interval '1 hour')::text, 13);
begin
    foreach v_mode in array array['claim', 'urgent', 'ordered', 'fair'] loop
        v_name := 'later.' || v_mode;
        v_old := pg_temp.stock_mode(v_name, v_mode);
        -- published an hour later
        update pubsub_data.messages m
        set message_id = overlay(m.message_id::text placing v_prefix from 1)::uuid
        where m.message_id = any(v_old);
        update pubsub_data.deliveries d
        set message_id = overlay(d.message_id::text placing v_prefix from 1)::uuid
        where d.message_id = any(v_old);
        assert cardinality(pg_temp.found(v_name, 2)) = 2, format('%s: %s', c_proves, v_mode);

        for v_round in 1 .. 3 loop
            v_new := pg_temp.publish_in_mode(v_name, v_mode);
            assert pg_temp.claim(v_name, 10) @> v_new, format('%s: %s %s', c_proves, v_mode, v_round);
            perform pubsub.ack_messages(v_name, v_new);
        end loop;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'retries come however the session writes times and numbers';
    v_ids uuid[] := pg_temp.stock('styles', 1, 100, 1);
    v_found int := 0;
    v_until timestamptz := clock_timestamp() + interval '20 s';
begin
    perform set_config('datestyle', 'SQL, MDY', true), set_config('timezone', 'Asia/Shanghai', true),
        set_config('intervalstyle', 'sql_standard', true), set_config('extra_float_digits', '-15', true),
        set_config('bytea_output', 'escape', true);

    while v_found < 4 and clock_timestamp() < v_until loop
        v_found := v_found + cardinality(pg_temp.claim('styles'));
        perform pg_sleep(0.01);
    end loop;

    assert v_found = 4, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'is_credible tells hints of the past from those of the future';
begin
    assert pubsub.is_credible(100, 100, 60000100), c_proves;
    assert not pubsub.is_credible(100, 101, 100), c_proves;
    assert not pubsub.is_credible(100, 100, 60000101), c_proves;
    assert not pubsub.is_credible(100, -1, 100), c_proves;
    assert not pubsub.is_credible(100, null, null), c_proves;
end
$$;
