/* Ids of new messages, and what claims are told of new deliveries. */

do $$
declare
    c_proves constant text := 'new ids are those of the present millisecond, and ascend';
    v_from constant timestamptz := date_trunc('milliseconds', clock_timestamp());
    v_ids constant uuid[] := pubsub.new_message_ids(100);
    v_published constant uuid[] := pg_temp.stock('present', 1);
begin
    assert v_ids = array(select distinct unnest(v_ids) order by 1), c_proves;
    assert pubsub.id_time(v_ids[1]) between v_from and clock_timestamp(), c_proves;
    assert pubsub.id_time(v_published[1]) between v_from and clock_timestamp(), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'deliveries added in another way are noted like published ones';
    v_keys record;
    v_ids uuid[];
begin
    v_ids := pg_temp.stock('by-hand', 2);
    v_keys := pubsub.subscription_keys('by-hand');
    update pubsub_data.deliveries d
    set visible_at = clock_timestamp() + interval '1 hour', lane = '7'
    where d.topic_key = v_keys.topic_key and d.message_id = v_ids[1];

    perform pubsub.note_deliveries(v_keys.topic_key, array[v_keys.subscription_key], v_ids);

    assert (
        select array_agg(w.message_ids) = array[v_ids[1:1]]
        from pubsub_data.wakeups w where w.topic_key = v_keys.topic_key
    ), c_proves;
    assert (
        select s.has_priorities from pubsub_data.subscriptions s
        where s.subscription_id = 'by-hand'
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what was checked elsewhere is published by key, under the ids given';
    v_topic_key bigint;
    v_ids constant uuid[] := pubsub.new_message_ids(2);
    v_published record;
begin
    perform pg_temp.stock('keyed');
    select t.topic_key into v_topic_key from pubsub_data.topics t where t.topic_id = 'keyed';

    v_published := pubsub.publish_to_topic(v_topic_key, array['{}', '{}']::jsonb[],
        p_message_ids => v_ids);

    assert v_published.message_ids = v_ids, c_proves;
    assert v_published.subscription_keys = array(
        select s.subscription_key from pubsub_data.subscriptions s
        where s.topic_key = v_topic_key
    ), c_proves;
    assert pg_temp.claim('keyed') = v_ids, c_proves;
end
$$;
