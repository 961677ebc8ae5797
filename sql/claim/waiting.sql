/*
 * Waiting for messages without asking for them again and again, and without a word from publishers: a
 * NOTIFY would make their commits queue up. A server that has waiting consumers keeps one call of
 * wait_for_commit, which sleeps inside Postgres until some transaction has ended, and then asks once,
 * for all of them, which subscriptions have something to hand out.
 */

/*
 * wait_for_commit — wait until a transaction of any database of this server has ended.
 *
 * In       p_snapshot: what an earlier call returned; anything else returns at once
 * Out      p_snapshot: which transactions had ended by now. Equal to the one given: p_seconds are over
 * Effects  commits at every look, so that it never holds old rows back from vacuum; so it cannot have a
 *          search_path of its own, and names in full all that it uses
 */
create procedure pubsub.wait_for_commit(inout p_snapshot text, in p_seconds float8)
language plpgsql
as $$
declare
    -- of pg_current_snapshot: a write-ahead position would move before what it says can be seen
    v_snapshot pg_catalog.text;
    v_until constant pg_catalog.timestamptz := pg_catalog.clock_timestamp()
        operator(pg_catalog.+) pg_catalog.make_interval(secs => p_seconds);
begin
    loop
        v_snapshot := pg_catalog.pg_current_snapshot()::pg_catalog.text;
        exit when (v_snapshot operator(pg_catalog.=) p_snapshot) is not true
            or pg_catalog.clock_timestamp() operator(pg_catalog.>=) v_until;
        commit;
        perform pg_catalog.pg_sleep(0.02);
        commit;
    end loop;
    p_snapshot := v_snapshot;
end
$$;

comment on procedure pubsub.wait_for_commit is
    'Wait until a transaction has ended, for some seconds at most; looks every 20 ms.';

/*
 * ready_subscriptions — which of some subscriptions may have messages to hand out.
 *
 * In       per subscription p_after: only messages above it are looked at; null: those of the last ten
 *          seconds. p_rewinds: how often it was rewound when p_after was noted
 * Out      one row each, in any order. is_ready: a claim is worth while, or the subscription is gone.
 *          next_after: p_after of the next look, when this one found nothing. newest: its highest
 *          message. due_at and due_in_seconds: the first retry, delay or lease that ends, or the end of
 *          what a limit forbids now; null: none will, or the subscription is paused. frees: an ack may make
 *          other messages available. by_consumer: what one consumer is refused, another may get.
 *          expires_after_seconds: who waits must keep it
 */
create function pubsub.ready_subscriptions(
    p_subscription_ids text[], p_after uuid[], p_rewinds int[]
)
returns table (
    subscription_id text, topic_id text, is_ready boolean, next_after uuid, newest uuid,
    rewinds int, due_at timestamptz, due_in_seconds float8, frees boolean, by_consumer boolean,
    expires_after_seconds int
)
language sql stable parallel safe
set enable_seqscan = off
set enable_bitmapscan = off
as $$
    select w.subscription_id, t.topic_id,
        s.subscription_id is null
            or not s.paused
            and coalesce(h.until <= clock_timestamp(), true)
            and (coalesce(n.due_at <= clock_timestamp(), false) or f.message_id is not null),
        -- whoever is still publishing may commit below what is there now, but not below its own start
        least(l.message_id, o.started, pubsub.id_at(c.now - interval '2 seconds')),
        l.message_id, s.rewinds, e.due_at,
        extract(epoch from e.due_at - clock_timestamp())::float8,
        coalesce(s.enable_ordering or s.max_in_flight is not null
            or s.max_in_flight_per_consumer is not null, false),
        s.max_in_flight_per_consumer is not null, s.expires_after_seconds
    from unnest(p_subscription_ids, p_after, p_rewinds) as w (subscription_id, after, rewinds)
    cross join (select clock_timestamp() as now) c
    cross join (
        select pubsub.id_at(min(a.xact_start)) as started
        from pg_stat_activity a where a.backend_xid is not null
    ) o
    left join pubsub_data.subscriptions s on s.subscription_id = w.subscription_id
    left join pubsub_data.topics t on t.topic_key = s.topic_key
    left join lateral (
        select nullif(pubsub.next_allowance_at(s.topic_key, s.subscription_key), '-infinity') as until
        where s.max_in_flight is not null or s.max_in_flight_per_consumer is not null
            or s.max_rate is not null
    ) h on true
    left join lateral (
        select x.due_at
        from pubsub_data.wakeups x
        where x.topic_key = s.topic_key and x.subscription_key = s.subscription_key
            and x.due_at < 'infinity'
        order by x.due_at
        limit 1
    ) n on true
    left join lateral (
        select greatest((
            select x.message_id
            from pubsub_data.deliveries x
            where x.topic_key = s.topic_key and x.subscription_key = s.subscription_key
            order by x.message_id desc
            limit 1
        ), (
            select x.message_ids[cardinality(x.message_ids)]
            from pubsub_data.runs x
            where x.topic_key = s.topic_key and x.subscription_key = s.subscription_key
            order by x.run_id desc
            limit 1
        )) as message_id
    ) l on true
    cross join lateral (
        select least(
            -- not what was noted before the clock was set back
            coalesce(case when w.after <= pubsub.id_at(c.now) then w.after end,
                pubsub.id_at(c.now - interval '10 seconds')),
            case when s.rewinds <> w.rewinds then s.rewound_to end) as after
    ) a
    left join lateral (
        select coalesce((
            select x.message_id
            from pubsub_data.deliveries x
            where x.topic_key = s.topic_key
                and x.subscription_key = s.subscription_key
                and x.message_id > a.after
                and x.visible_at <= clock_timestamp()
                and x.attempts < s.max_delivery_attempts
                and (x.expires_at is null or x.expires_at > clock_timestamp())
            order by x.message_id
            limit 1
        ), (
            select x.run_id
            from pubsub_data.runs x
            where x.topic_key = s.topic_key
                and x.subscription_key = s.subscription_key
                and x.run_id >= pubsub.run_start(a.after)
                and x.message_ids[cardinality(x.message_ids)] > a.after
                and x.lease is null
            order by x.run_id
            limit 1
        )) as message_id
    ) f on true
    cross join lateral (
        select case
            when s.paused then null
            when h.until is null then n.due_at
            when f.message_id is not null then h.until
            when n.due_at is not null then greatest(n.due_at, h.until)
        end as due_at
    ) e
$$;

comment on function pubsub.ready_subscriptions is
    'Which subscriptions may have messages to hand out, and when the next retry of each is due.';
