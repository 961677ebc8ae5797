/* Acks of runs (catalog/runs.sql) as they are: one row each. */

/*
 * may_be_of_runs — whether leases may be of claims that leased runs: any is odd, or any lease will do.
 */
create function pubsub.may_be_of_runs(p_leases bigint[])
returns boolean
language plpgsql immutable parallel safe
as $$
declare
    v_lease bigint;
begin
    if p_leases is null then
        return true;
    end if;
    foreach v_lease in array p_leases loop
        if (v_lease % 2 = 0) is not true then
            return true;
        end if;
    end loop;
    return false;
end
$$;

comment on function pubsub.may_be_of_runs is 'Whether leases may be of claims that leased runs.';

/*
 * note_acked — what is noted of acks of runs that one claim has leased for one consumer.
 *
 * In       p_leased_at, p_ack_deadline, p_consumer_id: of all of them
 */
create function pubsub.note_acked(
    p_topic_key bigint, p_subscription_key bigint, p_message_ids uuid[], p_leased_at timestamptz,
    p_ack_deadline timestamptz, p_consumer_id text, p_per_consumer boolean
)
returns void
language plpgsql volatile
as $$
declare
    v_messages constant int := cardinality(p_message_ids);
begin
    insert into pubsub_data.acked (
        topic_key, subscription_key, acked_at, delivered_at, attempts, consumer_id, message_ids
    )
    values (p_topic_key, p_subscription_key, clock_timestamp(), p_leased_at, 1,
        p_consumer_id, p_message_ids);
    insert into pubsub_data.counters (
        topic_key, subscription_key, due_at, consumer_id, backlog, leased, acked
    )
    values (p_topic_key, p_subscription_key, pubsub.counter_time(p_ack_deadline),
        case when p_per_consumer then p_consumer_id end, -v_messages, -v_messages, v_messages);
end
$$;

comment on function pubsub.note_acked is 'Note acks of runs.';

/*
 * ack_runs — ack runs as they are, where all of one is named; the others of which any is named are broken up.
 *
 * In       p_message_ids, in any order; p_leases: one each, or null: any lease; p_per_consumer: as in
 *          ack_deliveries
 * Out      the positions of the ids that it did not settle, in the order of ids
 * Locks    the runs, in id order
 */
create function pubsub.ack_runs(
    p_topic_key bigint, p_subscription_key bigint, p_message_ids uuid[], p_leases bigint[],
    p_per_consumer boolean
)
returns int[]
language plpgsql volatile
as $$
declare
    v_ids uuid[];
    v_leases bigint[];
    v_positions int[];
    v_rest int[] := '{}';
    -- all before it are settled or left
    v_at int := 1;
    v_upto int;
    v_next uuid;
    v_run pubsub_data.runs;
    -- what one claim has leased for one consumer is noted in one row
    v_last pubsub_data.runs;
    v_acked uuid[];
begin
    select array_agg(i.id order by i.id), array_agg(i.lease order by i.id),
        array_agg(i.position order by i.id)
    into v_ids, v_leases, v_positions
    from unnest(p_message_ids, p_leases) with ordinality as i (id, lease, position);
    while v_at <= cardinality(v_ids) loop
        delete from pubsub_data.runs r
        where r.topic_key = p_topic_key
            and r.subscription_key = p_subscription_key
            and r.run_id = v_ids[v_at]
            and r.lease is not null
            and r.message_ids = v_ids[v_at : v_at + cardinality(r.message_ids) - 1]
            and (p_leases is null or v_leases[v_at : v_at + cardinality(r.message_ids) - 1]
                = array_fill(r.lease, array[cardinality(r.message_ids)]))
        returning r.* into v_run;
        if found then
            if v_run.lease <> v_last.lease or v_run.consumer_id <> v_last.consumer_id then
                perform pubsub.note_acked(p_topic_key, p_subscription_key, v_acked,
                    v_last.leased_at, v_last.ack_deadline, v_last.consumer_id, p_per_consumer);
                v_acked := null;
            end if;
            v_acked := v_acked || v_run.message_ids;
            v_last := v_run;
            v_at := v_at + cardinality(v_run.message_ids);
            continue;
        end if;
        select r.run_id into v_next
        from pubsub_data.runs r
        where r.topic_key = p_topic_key
            and r.subscription_key = p_subscription_key
            and r.run_id > v_ids[v_at]
            and r.run_id <= v_ids[cardinality(v_ids)]
            and r.lease is not null
        order by r.run_id
        limit 1;
        v_upto := v_at;
        while (v_ids[v_upto + 1] < v_next) is not false and v_upto < cardinality(v_ids) loop
            v_upto := v_upto + 1;
        end loop;
        -- here, since runs are locked in the order of ids
        perform pubsub.single_out(p_topic_key, p_subscription_key, v_ids[v_at : v_upto]);
        v_rest := v_rest || v_positions[v_at : v_upto];
        v_at := v_upto + 1;
    end loop;
    if v_acked is not null then
        perform pubsub.note_acked(p_topic_key, p_subscription_key, v_acked, v_last.leased_at,
            v_last.ack_deadline, v_last.consumer_id, p_per_consumer);
    end if;
    return v_rest;
end
$$;

comment on function pubsub.ack_runs is
    'Ack runs as they are, where all of one is named; returns the positions of the other ids.';
