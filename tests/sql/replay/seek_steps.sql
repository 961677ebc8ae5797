/* Steps of seeks. */

do $$
declare
    c_topic_key constant bigint := 1;
    c_proves constant text := 'when the transactions of its begin are over, a new one looks once more';
    v_arguments jsonb := '{"settle_upto": "00000000-0000-0000-0000-000000000001",
        "upto": "00000000-0000-0000-0000-000000000002"}';
    v_catching jsonb;
begin
    assert pubsub.catch_up_seek(c_topic_key, v_arguments) = v_arguments,
        c_proves || ': an ordinary seek does not';
    v_arguments := v_arguments || '{"catch_up": {"begun_by": "3",
        "from": "00000000-0000-0000-0000-000000000001"}}';
    v_catching := pubsub.catch_up_seek(c_topic_key, v_arguments);
    assert v_catching - 'catch_up' = v_arguments - 'catch_up'
        and (v_catching -> 'catch_up' ->> 'upto')::uuid <= pubsub.seek_end(c_topic_key)
        and v_catching -> 'catch_up' ? 'horizon', c_proves || ': notes what is open';
    assert pubsub.catch_up_seek(c_topic_key, v_catching) = v_catching, c_proves || ': waits';
    v_catching := jsonb_set(v_catching, '{catch_up,not_before}', to_jsonb(now() - interval '1 hour'));
    -- this transaction began before it
    v_catching := jsonb_set(v_catching, '{catch_up,horizon}', '"4611686018427387904"');
    assert pubsub.catch_up_seek(c_topic_key, v_catching) = v_catching, c_proves || ': for transactions';
    v_catching := jsonb_set(v_catching, '{catch_up,horizon}', '"3"');
    assert pubsub.catch_up_seek(c_topic_key, v_catching) = jsonb_build_object('catching_up', true,
        'settle_upto', v_catching -> 'catch_up' -> 'from', 'upto', v_catching -> 'catch_up' -> 'upto'),
        c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'what is published while a seek runs stays, also once the clock was set back';
    v_ids uuid[];
    v_job_id uuid;
    v_to text;
begin
    foreach v_to in array array['end', 'time', 'snapshot'] loop
        v_ids := pg_temp.before_the_step(pg_temp.stock(v_to, 3));
        perform pubsub.ack_messages(v_to, pg_temp.claim(v_to));
        perform pubsub.create_snapshot(v_to, v_to);
        update pubsub_data.snapshots n set position = v_ids[3] where n.snapshot_id = v_to;
        v_job_id := case v_to
            when 'end' then (select s.id from pubsub.seek_subscription_to_end(v_to) s)
            when 'time' then (select s.id from pubsub.seek_subscription(v_to, 'infinity') s)
            else (select s.id from pubsub.seek_subscription_to_snapshot(v_to, v_to) s)
        end;
        v_ids := pg_temp.publish(v_to, 3);
        -- as if the steps were still to come
        update pubsub_data.jobs j
        set state = 'running', position = '00000000-0000-0000-0000-000000000000'
        where j.job_id = v_job_id;

        assert pubsub.advance_job(v_job_id), c_proves;

        assert (select g.state from pubsub.get_job(v_job_id) g) = 'done', c_proves;
        assert pg_temp.reread(v_to) = v_ids, c_proves || ': to ' || v_to;
    end loop;
end
$$;
