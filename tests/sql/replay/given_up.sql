/* Ordering keys across dead letters, parking and reprocessing, by what claims hand out. */

/* ordered — messages of the keys given, in an ordering subscription; their ids. */
create function pg_temp.ordered(p_name text, p_failure text, p_keys text[])
returns uuid[]
language plpgsql volatile
as $$
begin
    perform pubsub.create_topic(p_name);
    perform pubsub.create_subscription(p_name, p_name,
        json_build_object('max_delivery_attempts', 1, 'enable_ordering', true,
            'ordering_failure', p_failure));
    return array(
        select p.message_id
        from pubsub.publish_messages(p_name, array_fill('{}'::jsonb, array[cardinality(p_keys)]),
            p_ordering_keys => p_keys) p
    );
end
$$;

do $$
declare
    c_proves constant text := 'a parked message holds its key, and only its key, until it is resumed';
    v_ids uuid[] := pg_temp.ordered('hold', 'park', array['a', 'b', 'a', 'b', 'a']);
begin
    assert pg_temp.claim('hold', 1) = v_ids[1:1], c_proves;
    perform pubsub.nack_messages('hold', v_ids[1:1]);

    assert pg_temp.claim('hold') = array[v_ids[2], v_ids[4]], c_proves;
    perform pubsub.ack_messages('hold', array[v_ids[2], v_ids[4]]);
    perform pg_temp.later('hold', '1 hour');
    assert pg_temp.claim('hold') = '{}', c_proves;

    assert pubsub.resume_messages('hold', v_ids[1:1], 'retry') = 1, c_proves;
    assert pg_temp.claim('hold') = array[v_ids[1], v_ids[3], v_ids[5]], c_proves;
    assert pubsub.recount_messages('hold') = 0, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'skipping or dead-lettering a parked message lets the rest of its key go';
    v_ids uuid[];
    v_action text;
begin
    foreach v_action in array array['skip', 'dead_letter'] loop
        v_ids := pg_temp.ordered('go-' || v_action, 'park', array['a', 'a', 'a']);
        perform pubsub.nack_messages('go-' || v_action, pg_temp.claim('go-' || v_action, 1));
        assert pg_temp.claim('go-' || v_action) = '{}', c_proves || ': ' || v_action;

        assert pubsub.resume_messages('go-' || v_action, v_ids, v_action) = 1,
            c_proves || ': ' || v_action;

        assert pg_temp.claim('go-' || v_action) = v_ids[2:3], c_proves || ': ' || v_action;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'a key goes on past what is skipped or dead-lettered';
    v_ids uuid[];
    v_failure text;
begin
    foreach v_failure in array array['skip', 'dead_letter'] loop
        v_ids := pg_temp.ordered('past-' || v_failure, v_failure, array['a', 'a', 'a']);
        perform pubsub.nack_messages('past-' || v_failure, pg_temp.claim('past-' || v_failure, 1));

        assert pg_temp.claim('past-' || v_failure) = v_ids[2:3], c_proves || ': ' || v_failure;
        assert pubsub.recount_messages('past-' || v_failure) = 0, c_proves || ': ' || v_failure;
    end loop;
end
$$;

do $$
declare
    c_proves constant text :=
        'a reprocessed message comes before the later ones of its key, also when it is paced';
    v_ids uuid[];
    v_pace int;
begin
    foreach v_pace in array array[null, 1] loop
        v_ids := pg_temp.ordered('again-' || coalesce(v_pace, 0), 'dead_letter',
            array['a', 'b', 'a', 'a']);
        -- the head of the key dies, the claims have read past it
        perform pubsub.nack_messages(
            'again-' || coalesce(v_pace, 0), pg_temp.claim('again-' || coalesce(v_pace, 0), 2));
        assert (
            select r.reprocessed = 2
            from pubsub.reprocess_matching_dlq_messages(
                'again-' || coalesce(v_pace, 0), p_per_second => v_pace) r
        ), c_proves;

        assert pg_temp.claim('again-' || coalesce(v_pace, 0), 1) = v_ids[1:1], c_proves;
        perform pubsub.ack_messages('again-' || coalesce(v_pace, 0), v_ids[1:1]);
        if v_pace is null then
            assert pg_temp.claim('again-0') = v_ids[2:4], c_proves;
        else
            -- what is paced waits; its key waits behind it
            assert pg_temp.claim('again-1') = v_ids[3:4], c_proves;
            perform pg_temp.later('again-1', '1 second');
            assert pg_temp.claim('again-1') = v_ids[2:2], c_proves;
        end if;
        assert pubsub.recount_messages('again-' || coalesce(v_pace, 0)) = 0, c_proves;
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'many reprocessed messages are found without a new connection';
    v_ids uuid[] := pg_temp.stock('found-again', 2500, 1);
begin
    for v_batch in 1 .. 3 loop
        perform pubsub.nack_messages('found-again', pg_temp.claim('found-again'));
    end loop;
    assert pg_temp.claim('found-again') = '{}', c_proves;

    assert (
        select r.reprocessed = 2500 from pubsub.reprocess_matching_dlq_messages('found-again') r
    ), c_proves;

    assert pg_temp.claim('found-again') || pg_temp.claim('found-again')
        || pg_temp.claim('found-again') = v_ids, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a dead letter topic gets key and priority, too';
begin
    perform pg_temp.stock('grave');
    perform pubsub.create_topic('keyed');
    perform pubsub.create_subscription('keyed', 'keyed',
        '{"max_delivery_attempts": 1, "dead_letter_topic_id": "grave"}');
    perform pubsub.publish_messages('keyed', array['{}']::jsonb[], p_ordering_keys => array['k'],
        p_priorities => array[4]::smallint[]);

    perform pubsub.nack_messages('keyed', pg_temp.claim('keyed'));

    assert (
        select c.ordering_key = 'k' and c.priority = 4
        from pubsub.consume_messages('grave', 'consumer') c
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'reprocessed messages of a fairness value or a priority are found';
    v_ids uuid[];
begin
    perform pubsub.create_topic('fair');
    perform pubsub.create_subscription('fair', 'fair',
        '{"max_delivery_attempts": 1, "fairness_key": "tenant"}');
    select array_agg(p.message_id) into v_ids from pubsub.publish_messages('fair',
        array['{}', '{}']::jsonb[], array['{"tenant": "x"}', '{"tenant": "y"}']::jsonb[]) p;
    perform pubsub.nack_messages('fair', pg_temp.claim('fair'));
    delete from pubsub_data.fair_lanes;

    perform pubsub.reprocess_matching_dlq_messages('fair');

    assert array(select unnest(pg_temp.claim('fair')) order by 1) = v_ids, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a transaction publishes with keys, priorities and idempotency keys';
    v_first record;
    v_second record;
begin
    perform pg_temp.stock('full');
    for v_round in 1 .. 2 loop
        v_first := v_second;
        select array_agg(t.message_id) as ids, array_agg(t.duplicate) as duplicates
        into v_second
        from pubsub.apply_transaction(p_topic_ids => array['full', 'full'],
            p_payloads => array['{"n": 1}', '{"n": 2}']::jsonb[],
            p_ordering_keys => array['k', null], p_priorities => array[null, 3]::smallint[],
            p_idempotency_keys => array['once', null]) t;
    end loop;

    assert v_first.ids[1] = v_second.ids[1] and v_first.ids[2] <> v_second.ids[2], c_proves;
    assert v_second.duplicates = array[true, false], c_proves;
    assert (
        select count(*) = 3 and count(*) filter (where c.ordering_key = 'k') = 1
            and count(*) filter (where c.priority = 3) = 2
        from pubsub.consume_messages('full', 'consumer') c
    ), c_proves;
end
$$;
