/* Message keys: what is live under one is not published again; once it is settled, the key is free. */

/* keyed — publish a message {"n": 1}, {"n": 2}, ... under each key; "id" of it, marked with * of a duplicate. */
create function pg_temp.keyed(p_topic text, p_keys text[])
returns text[]
language sql volatile
as $$
    select array_agg(p.message_id || case when p.duplicate then '*' else '' end)
    from pubsub.publish_messages(p_topic, array(
        select jsonb_build_object('n', n) from generate_series(1, cardinality(p_keys)) n
    ), p_message_keys => p_keys) p
$$;

do $$
declare
    c_proves constant text := 'what is live under a key is not published again; the answer is its id';
    v_first text[];
    v_again text[];
begin
    perform pg_temp.stock('live');
    v_first := pg_temp.keyed('live', '{a,b}');

    v_again := pg_temp.keyed('live', '{null,b,c,a}');

    assert v_again[2] = v_first[2] || '*' and v_again[4] = v_first[1] || '*', c_proves;
    assert v_again[1] not like '%*' and v_again[3] not like '%*', c_proves;
    assert array(
        select c.payload ->> 'n' from pubsub.consume_messages('live', 'consumer', 100) c
    ) = '{1,2,1,3}', c_proves;
    assert (
        select count(*) from pubsub_data.messages m
        where m.topic_key = (pubsub.subscription_keys('live')).topic_key
    ) = 4, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a key that comes twice in one call publishes the first';
    v_answer text[];
begin
    perform pg_temp.stock('twice');
    v_answer := pg_temp.keyed('twice', '{b,b,a,b}');

    assert v_answer[2] = v_answer[1] || '*' and v_answer[4] = v_answer[2]
        and v_answer[3] not like '%*', c_proves;
    assert array(
        select c.payload ->> 'n' from pubsub.consume_messages('twice', 'consumer', 100) c
    ) = '{1,3}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a key is free once its message was acked, rejected, spent or over, and not before';
    v_ids uuid[];
    v_lease bigint;
begin
    perform pg_temp.stock('freed', 0, 2);
    v_ids[1] := (pg_temp.keyed('freed', '{a}'))[1];
    assert pg_temp.keyed('freed', '{a}') = array[v_ids[1] || '*'], c_proves || ': waiting';
    select c.lease into v_lease from pubsub.consume_messages('freed', 'consumer', 1) c;
    assert pg_temp.keyed('freed', '{a}') = array[v_ids[1] || '*'], c_proves || ': leased';
    perform pubsub.nack_messages('freed', v_ids);
    assert pg_temp.keyed('freed', '{a}') = array[v_ids[1] || '*'], c_proves || ': backing off';
    perform pg_temp.later('freed', interval '1 hour');
    assert pg_temp.claim('freed') = v_ids, c_proves;
    perform pubsub.ack_messages('freed', v_ids);

    v_ids[1] := (pg_temp.keyed('freed', '{a}'))[1];
    select c.lease into v_lease from pubsub.consume_messages('freed', 'consumer', 1) c;
    assert (pubsub.settle_messages('freed', v_ids, array[v_lease], '{reject}')).status
        = 'dead_lettered', c_proves;
    v_ids[1] := (pg_temp.keyed('freed', '{a}'))[1];
    for v_attempt in 1 .. 2 loop
        assert pg_temp.claim('freed') = v_ids, c_proves;
        perform pubsub.nack_messages('freed', v_ids);
        perform pg_temp.later('freed', interval '1 hour');
    end loop;
    v_ids[1] := (pg_temp.keyed('freed', '{a}'))[1];

    assert pg_temp.claim('freed') = v_ids, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a message whose time is over is not live, unless somebody has it';
    v_first text[];
    v_second text[];
begin
    perform pubsub.create_topic('over');
    perform pubsub.create_subscription('over', 'over', '{"message_ttl_seconds": 60}');
    v_first := pg_temp.keyed('over', '{a,b}');
    perform pubsub.consume_messages('over', 'consumer', 1, 3600);
    update pubsub_data.deliveries d
    set expires_at = clock_timestamp() - interval '1 s'
    where d.topic_key = (pubsub.subscription_keys('over')).topic_key;

    v_second := pg_temp.keyed('over', '{a,b}');

    assert v_second[1] = v_first[1] || '*' and v_second[2] not like '%*', c_proves;
    assert (select array_agg(f.message_key) from pubsub.find_messages('over', '{a,b}') f) = '{a,b}', c_proves;
    assert pg_temp.claim('over') = array[v_second[2]]::uuid[], c_proves;
    perform pg_temp.later('over', interval '2 hours');
    assert pg_temp.keyed('over', '{a}') not in (v_first[1:1], v_second[1:1]), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a key is free when every subscription of its topic has settled its message';
    v_id uuid;
begin
    perform pg_temp.stock('many');
    perform pubsub.create_subscription('many-2', 'many');
    perform pubsub.create_subscription('many-3', 'many', '{"filter": {"n": [2]}}');
    v_id := (pg_temp.keyed('many', '{a}'))[1];

    perform pg_temp.claim('many');
    perform pubsub.ack_messages('many', array[v_id]);
    assert pg_temp.keyed('many', '{a}') = array[v_id || '*'], c_proves;
    assert not exists (select from pubsub.find_messages('many', '{a}')), c_proves;
    assert (select f.message_id from pubsub.find_messages('many-2', '{a}') f) = v_id, c_proves;

    perform pubsub.delete_subscription('many-2');
    assert pg_temp.keyed('many', '{a}') <> array[v_id || '*'], c_proves || ': deleted';
end
$$;

do $$
declare
    c_proves constant text := 'a message that nobody waits for is never live';
    v_first text[];
begin
    perform pubsub.create_topic('unheard');
    v_first := pg_temp.keyed('unheard', '{a}');
    assert pg_temp.keyed('unheard', '{a}') not in (v_first, array[v_first[1] || '*']), c_proves;
    -- the others of its call are told apart all the same
    v_first := pg_temp.keyed('unheard', '{a,a}');
    assert v_first[2] = v_first[1] || '*', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the same key in another topic is another key';
begin
    perform pg_temp.stock('key-of-1');
    perform pg_temp.stock('key-of-2');
    perform pg_temp.keyed('key-of-1', '{a}');
    assert (pg_temp.keyed('key-of-2', '{a}'))[1] not like '%*', c_proves;
    assert cardinality(pg_temp.claim('key-of-2')) = 1, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'messages with keys are delivered one by one, so each is freed by its own ack';
    v_ids uuid[];
    v_again text[];
begin
    perform pg_temp.stock_runs('single', 0);
    v_ids := pg_temp.keyed('single', array(select 'k' || n from generate_series(1, 20) n));
    assert pg_temp.runs('single') = '', c_proves;
    perform pg_temp.claim('single');
    perform pubsub.ack_messages('single', v_ids[7:7]);

    v_again := pg_temp.keyed('single', array(select 'k' || n from generate_series(1, 20) n));
    assert array_position(v_again, (v_ids[7] || '*')::text) is null, c_proves;
    assert (select count(*) from unnest(v_again) as a (id) where a.id like '%*') = 19, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what is in a run is live';
    v_keys record;
    v_ids uuid[] := pg_temp.stock_runs('run', 20);
begin
    v_keys := pubsub.subscription_keys('run');
    assert pg_temp.runs('run') = '20 ready', c_proves;
    insert into pubsub_data.message_keys (topic_key, message_key, message_id)
    values (v_keys.topic_key, 'a', v_ids[7]);
    assert pubsub.is_live(v_keys.topic_key, v_keys.subscription_key, v_ids[7], clock_timestamp()), c_proves;
    assert pg_temp.keyed('run', '{a}') = array[v_ids[7] || '*'], c_proves;
    assert (select f.message_id from pubsub.find_messages('run', '{a}') f) = v_ids[7], c_proves;

    perform pg_temp.claim('run');
    assert pg_temp.keyed('run', '{a}') = array[v_ids[7] || '*'], c_proves || ': leased';
    perform pubsub.ack_messages('run', v_ids[7:7]);
    assert not exists (select from pubsub.find_messages('run', '{a}')), c_proves;
    assert not pubsub.is_live(v_keys.topic_key, v_keys.subscription_key, v_ids[7], clock_timestamp()), c_proves;
    assert pg_temp.keyed('run', '{a}') <> array[v_ids[7] || '*'], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a message with a key may have all that others may have';
    v_message record;
begin
    perform pg_temp.stock('all');
    perform pubsub.publish_messages('all', array['{}']::jsonb[], array['{"x": "y"}']::jsonb[],
        p_deliver_at => array[clock_timestamp() + interval '1 hour'],
        p_expires_at => array[clock_timestamp() + interval '2 hours'],
        p_ordering_keys => '{k}', p_priorities => '{3}', p_message_keys => '{a}');
    select m.* into v_message from pubsub.subscription_messages m where m.subscription_id = 'all';

    assert v_message.state = 'scheduled' and v_message.attributes = '{"x": "y"}'
        and v_message.ordering_key = 'k' and v_message.priority = 3
        and v_message.expires_at is not null, c_proves;
    assert (pg_temp.keyed('all', '{a}'))[1] = v_message.message_id || '*', c_proves || ': waits';
end
$$;

do $$
declare
    c_proves constant text := 'a key is 1 to 256 characters, and there is one per message or none';
begin
    perform pg_temp.stock('long');
    assert pg_temp.refusal($q$select pg_temp.keyed('long', '{null,""}')$q$)
        = 'PS422(message_key) message_key must be 1 to 256 characters', c_proves;
    assert pg_temp.refusal($q$select pg_temp.keyed('long', array[repeat('x', 257)])$q$)
        = 'PS422(message_key) message_key must be 1 to 256 characters', c_proves;
    assert pg_temp.refusal($q$select pubsub.publish_messages('long', array['{}']::jsonb[],
        p_message_keys => '{a,b}')$q$) = 'PS422(message_key) message_key must be null or have one '
            'element per message: 2 for 1 messages', c_proves;
    -- the longest, of characters with the most bytes
    assert (pg_temp.keyed('long', array[repeat('😀', 256)]))[1] not like '%*', c_proves;
    assert (pg_temp.keyed('long', array[repeat('😀', 256)]))[1] like '%*', c_proves;
    assert pg_temp.keyed('long', '{null}') is not null and cardinality(pg_temp.claim('long')) = 2, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a publish that is refused leaves its key free, and a duplicate is not checked';
begin
    perform pg_temp.stock('refused-key');
    assert pg_temp.refusal($q$select pubsub.publish_messages('refused-key', array[null]::jsonb[],
        p_message_keys => '{a}')$q$) like 'PS422(messages)%', c_proves;
    assert (pg_temp.keyed('refused-key', '{a}'))[1] not like '%*', c_proves;
    assert (
        select p.duplicate from pubsub.publish_messages('refused-key', array['{}']::jsonb[],
            p_expires_at => array[clock_timestamp() - interval '1 s'], p_message_keys => '{a}') p
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'idempotency keys come first; what a message key keeps back is remembered under them';
    v_live uuid;
    v_first record;
    v_retry record;
    v_count int;
begin
    perform pg_temp.stock('both');
    v_live := (pg_temp.keyed('both', '{a}'))[1];
    -- the second and the third are one message by their idempotency key, which the live one keeps back
    select array_agg(p.message_id) as ids, array_agg(p.duplicate) as duplicates into v_first
    from pubsub.publish_messages('both', array['1', '2', '3', '4']::jsonb[],
        p_idempotency_keys => '{w,x,x,y}', p_message_keys => '{null,a,b,c}', p_request_key => 'r') p;
    assert v_first.duplicates = '{f,t,t,f}', c_proves || v_first.duplicates::text;
    assert v_first.ids[2:3] = array[v_live, v_live], c_proves;
    -- a duplicate by its idempotency key takes no message key
    assert (pg_temp.keyed('both', '{b}'))[1] not like '%*', c_proves;

    perform pubsub.ack_messages('both', pg_temp.claim('both'));
    select array_agg(p.message_id) as ids, array_agg(p.duplicate) as duplicates into v_retry
    from pubsub.publish_messages('both', array['1', '2', '3', '4']::jsonb[],
        p_idempotency_keys => '{w,x,x,y}', p_message_keys => '{null,a,b,c}') p;
    assert v_retry.duplicates = '{t,t,t,t}' and v_retry.ids = v_first.ids, c_proves;
    select array_agg(p.message_id) as ids, array_agg(p.duplicate) as duplicates into v_retry
    from pubsub.publish_messages('both', array['1', '2', '3', '4']::jsonb[],
        p_idempotency_keys => '{w,x,x,y}', p_message_keys => '{null,a,b,c}', p_request_key => 'r') p;
    assert v_retry.duplicates = '{t,t,t,t}' and v_retry.ids = v_first.ids, c_proves || ': request';
    assert pg_temp.claim('both') = '{}', c_proves;
    assert (pg_temp.keyed('both', '{a}'))[1] not like '%*', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'message keys tell a request from another, and none leaves fingerprints as they were';
    v_of text;
begin
    perform pg_temp.stock('prints');
    perform pubsub.publish_messages('prints', array['{}']::jsonb[], p_request_key => 'r', p_message_keys => '{a}');
    assert pg_temp.refusal($q$select pubsub.publish_messages('prints', array['{}']::jsonb[],
        p_request_key => 'r', p_message_keys => '{b}')$q$)
        = 'PS422(idempotency_key) idempotency_key was used for another request', c_proves;
    v_of := pubsub.request_fingerprint(array['{}']::jsonb[], null, null, null, null, null, null);
    assert v_of = pubsub.request_fingerprint(array['{}']::jsonb[], null, null, null, null, null, null, null)
        and v_of = md5('[[{}], null, null, null, null, [], []]')
        and v_of <> pubsub.request_fingerprint(array['{}']::jsonb[], null, null, null, null, null, null, '{a}'),
        c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'claim_live_keys locks and takes keys of what is no duplicate yet';
    v_topic_key bigint;
    v_ids constant uuid[] := pubsub.new_message_ids(3);
    v_other constant uuid[] := pubsub.new_message_ids(1);
    v_claimed record;
begin
    perform pg_temp.stock('claim');
    v_topic_key := (pubsub.subscription_keys('claim')).topic_key;

    v_claimed := pubsub.claim_live_keys(v_topic_key, '{a,b,null}', v_ids, array[v_ids[1], v_other[1], v_ids[3]]);
    assert v_claimed.message_ids = array[v_ids[1], v_other[1], v_ids[3]], c_proves;
    assert v_claimed.duplicates = '{f,t,f}', c_proves;
    assert (
        select array_agg(k.message_key || ' ' || k.message_id) from pubsub_data.message_keys k
        where k.topic_key = v_topic_key
    ) = array['a ' || v_ids[1]], c_proves;
    v_claimed := pubsub.claim_live_keys(v_topic_key, '{null,null,null}', v_ids, v_ids);
    assert v_claimed.message_ids = v_ids and v_claimed.duplicates = '{f,f,f}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'find_messages tells what is live under keys, in their order';
    v_ids uuid[];
begin
    perform pg_temp.stock('find');
    v_ids := pg_temp.keyed('find', '{a,b,c}');
    perform pg_temp.claim('find', 2);
    perform pubsub.ack_messages('find', v_ids[1:1]);

    assert array(
        select f.message_key || ' ' || f.message_id from pubsub.find_messages('find', '{c,x,a,b,null,c}') f
    ) = array['c ' || v_ids[3], 'b ' || v_ids[2], 'c ' || v_ids[3]], c_proves;
    assert not exists (select from pubsub.find_messages('find', '{}')), c_proves;
    assert not exists (select from pubsub.find_messages('find', null)), c_proves;
    assert pg_temp.refusal($q$select pubsub.find_messages('no-such', '{a}')$q$)
        = 'PS404 Subscription not found', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a dead letter that is published on, and one that comes back, have no key';
    v_id uuid;
    v_second uuid;
begin
    perform pg_temp.stock('graves');
    perform pg_temp.stock('dying', 0, 1);
    perform pubsub.update_subscription('dying', '{"dead_letter_topic_id": "graves"}');
    v_id := (pg_temp.keyed('dying', '{a}'))[1];
    perform pubsub.nack_messages('dying', pg_temp.claim('dying'));
    assert not exists (select from pubsub.find_messages('graves', '{a}')), c_proves;
    assert (pg_temp.keyed('graves', '{a}'))[1] not like '%*', c_proves;

    perform pubsub.update_subscription('dying', '{"dead_letter_topic_id": null}');
    v_id := (pg_temp.keyed('dying', '{a}'))[1];
    perform pubsub.nack_messages('dying', pg_temp.claim('dying'));
    v_second := (pg_temp.keyed('dying', '{a}'))[1];
    perform pubsub.reprocess_dlq_messages('dying', array[v_id]);
    assert pg_temp.keyed('dying', '{a}') = array[v_second || '*'], c_proves;
    assert cardinality(pg_temp.claim('dying')) = 2, c_proves;
    -- one whose key nobody has taken since goes on to have it
    perform pubsub.ack_messages('dying', array[v_second]);
    perform pubsub.nack_messages('dying', array[v_id]);
end
$$;

do $$
declare
    c_proves constant text := 'a step may ack a job and queue it again under its key';
    v_job record;
    v_again record;
begin
    perform pg_temp.stock('step');
    perform pg_temp.stock('next');
    perform pg_temp.keyed('step', '{a,b}');
    select c.message_id, c.lease into v_job from pubsub.consume_messages('step', 'consumer', 1) c;
    select array_agg(t.message_id) as ids, array_agg(t.duplicate) as duplicates into v_again
    from pubsub.apply_transaction(array['step'], array[v_job.message_id], array[v_job.lease],
        array['step', 'next', 'step', 'next'], array['{}', '{}', '{}', '{}']::jsonb[],
        p_message_keys => '{a,a,b,a}') t;

    assert v_again.duplicates = '{f,f,t,t}' and v_again.ids[2] = v_again.ids[4], c_proves;
    assert (select f.message_id from pubsub.find_messages('step', '{a}') f) = v_again.ids[1], c_proves;
    assert pg_temp.refusal($q$select pubsub.apply_transaction(p_topic_ids => array['step'],
        p_payloads => array['{}']::jsonb[], p_message_keys => '{a,b}')$q$) like 'PS422(publishes)%', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a server gets duplicates told, and who got any';
    v_answer record;
begin
    perform pg_temp.stock('server');
    select p.* into v_answer
    from pubsub.publish_messages_for('server', array['{}', '{}']::jsonb[], p_message_keys => '{a,a}') p;
    assert v_answer.duplicates = '{f,t}' and v_answer.subscription_ids = '{server}', c_proves;
    select p.* into v_answer
    from pubsub.publish_messages_for('server', array['{}']::jsonb[], p_message_keys => '{a}') p;
    assert v_answer.duplicates = '{t}' and v_answer.subscription_ids = '{}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a job whose last lease is over is live no more, though nobody has buried it yet';
    v_again uuid;
begin
    perform pg_temp.stock('spent', 0, 2, 10);
    perform pg_temp.keyed('spent', '{a}');
    for v_attempt in 1..2 loop
        perform pg_temp.claim('spent');
        assert (select count(*) from pubsub.find_messages('spent', '{a}')) = 1, c_proves;
        perform pg_temp.later('spent', '11 s');
        assert (select count(*) from pubsub.find_messages('spent', '{a}')) = 2 - v_attempt, c_proves;
    end loop;
    select p.message_id into v_again
    from pubsub.publish_messages('spent', array['{"again": true}']::jsonb[], p_message_keys => '{a}') p;

    assert (select f.message_id from pubsub.find_messages('spent', '{a}') f) = v_again, c_proves;
    assert pg_temp.claim('spent') = array[v_again], c_proves;
    assert pg_temp.counts('spent') = '0 available, 1 delivered, 0 scheduled, 0 acked, 1 dlq', c_proves;
end
$$;
