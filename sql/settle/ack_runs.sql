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
 * ack_runs — ack the runs with which ids begin, as they are, if all of each is named.
 *
 * In       p_message_ids: in order, else none is settled; p_per_consumer: as in ack_deliveries
 * Out      how many of the ids are settled: the first of them
 * Locks    the runs, in id order
 */
create function pubsub.ack_runs(
    p_topic_key bigint, p_subscription_key bigint, p_message_ids uuid[], p_leases bigint[],
    p_per_consumer boolean
)
returns int
language plpgsql volatile
as $$
declare
    v_acked int := 0;
    v_run pubsub_data.runs;
    -- what belongs to one claim and consumer is noted in one row
    v_noted int := 0;
    v_last pubsub_data.runs;
begin
    -- runs are locked in the order of ids
    if array_lower(p_message_ids, 1) <> 1 or array_lower(p_leases, 1) <> 1
        or p_message_ids <> array(select i.id from unnest(p_message_ids) as i (id) order by i.id)
    then
        return 0;
    end if;
    while v_acked < cardinality(p_message_ids) loop
        delete from pubsub_data.runs r
        where r.topic_key = p_topic_key
            and r.subscription_key = p_subscription_key
            and r.run_id = p_message_ids[v_acked + 1]
            and r.lease is not null
            and r.message_ids
                = p_message_ids[v_acked + 1 : v_acked + cardinality(r.message_ids)]
            and (p_leases is null
                or p_leases[v_acked + 1 : v_acked + cardinality(r.message_ids)]
                    = array_fill(r.lease, array[cardinality(r.message_ids)]))
        returning r.* into v_run;
        exit when not found;
        if v_acked > v_noted and (v_run.lease <> v_last.lease
            or v_run.consumer_id <> v_last.consumer_id)
        then
            perform pubsub.note_acked(p_topic_key, p_subscription_key,
                p_message_ids[v_noted + 1 : v_acked], v_last.leased_at, v_last.ack_deadline,
                v_last.consumer_id, p_per_consumer);
            v_noted := v_acked;
        end if;
        v_last := v_run;
        v_acked := v_acked + cardinality(v_run.message_ids);
    end loop;
    if v_acked > v_noted then
        perform pubsub.note_acked(p_topic_key, p_subscription_key,
            p_message_ids[v_noted + 1 : v_acked], v_last.leased_at, v_last.ack_deadline,
            v_last.consumer_id, p_per_consumer);
    end if;
    return v_acked;
end
$$;

comment on function pubsub.ack_runs is
    'Ack the runs with which ids begin; returns how many of the ids are settled.';
