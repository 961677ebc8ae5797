/*
 * The numbers behind ids: each is given once, by a sequence. A database that was moved by logical
 * replication has the rows, but sequences that begin anew: numbers that are taken are refused with what to
 * do, and never given to something new, since what is left of the old would pass for its own.
 */

/*
 * fail_sequences — refuse what would use a number again.
 *
 * Errors   PS503, always
 */
create function pubsub.fail_sequences()
returns void
language plpgsql immutable parallel safe
as $$
begin
    raise exception 'The sequences of this database are behind its tables, as after a move by logical '
        'replication: call "select pubsub.reset_sequences()" in it' using errcode = 'PS503';
end
$$;

comment on function pubsub.fail_sequences is
    'Refuse what would use a number again, and say what to do about the sequences.';

/*
 * check_topic_key, check_subscription_key — refuse the key of something new if old rows have it.
 *
 * Errors   PS503
 */
create function pubsub.check_topic_key(p_topic_key bigint)
returns void
language plpgsql stable parallel safe
set enable_seqscan = off
as $$
begin
    if exists (select from pubsub_data.messages m where m.topic_key = p_topic_key)
        or exists (select from pubsub_data.deleted_subscriptions g where g.topic_key = p_topic_key)
    then
        perform pubsub.fail_sequences();
    end if;
end
$$;

comment on function pubsub.check_topic_key is
    'Refuse the key of a new topic if messages of an old one have it.';

create function pubsub.check_subscription_key(p_topic_key bigint, p_subscription_key bigint)
returns void
language plpgsql stable parallel safe
set enable_seqscan = off
as $$
begin
    if exists (
        select from pubsub_data.deleted_subscriptions g
        where g.topic_key = p_topic_key and g.subscription_key = p_subscription_key
    ) or exists (
        select from pubsub_data.deliveries d
        where d.topic_key = p_topic_key and d.subscription_key = p_subscription_key
    ) or exists (
        select from pubsub_data.runs r
        where r.topic_key = p_topic_key and r.subscription_key = p_subscription_key
    ) then
        perform pubsub.fail_sequences();
    end if;
end
$$;

comment on function pubsub.check_subscription_key is
    'Refuse the key of a new subscription if what is left of an old one has it.';

/*
 * reset_sequences — bring the sequences that are behind the tables up to them, as after a move by logical
 * replication.
 *
 * Out      the sequences that were behind, and the last number that was used
 * Effects  not undone by a rollback. Call it before servers start: a session that has taken numbers
 *          already goes on with those
 */
create function pubsub.reset_sequences()
returns table (sequence_name text, last_used bigint)
language sql volatile
as $$
    with used (name, last_given, highest) as (
        select 'topics_topic_key_seq',
            (select q.last_value from pubsub_data.topics_topic_key_seq q where q.is_called),
            greatest(
                -- some are below 0
                (select greatest(max(t.topic_key), -min(t.topic_key)) from pubsub_data.topics t),
                (select greatest(max(g.topic_key), -min(g.topic_key)) from pubsub_data.deleted_subscriptions g),
                (select greatest(max(m.topic_key), -min(m.topic_key)) from pubsub_data.messages m),
                (select greatest(max(a.topic_key), -min(a.topic_key)) from pubsub_data.acked a))
        union all
        select 'subscriptions_subscription_key_seq',
            (
                select q.last_value from pubsub_data.subscriptions_subscription_key_seq q
                where q.is_called
            ),
            greatest(
                (select max(s.subscription_key) from pubsub_data.subscriptions s),
                (select max(g.subscription_key) from pubsub_data.deleted_subscriptions g),
                (select max(f.subscription_key) from pubsub_data.failures f),
                (select max(a.subscription_key) from pubsub_data.acked a))
        union all
        select 'wakeup_numbers',
            (select q.last_value from pubsub_data.wakeup_numbers q where q.is_called),
            (select max(w.wakeup_number) from pubsub_data.wakeups w)
        union all
        -- the low bits of ids, of which each number gives 131072; new ones have later high bits than those
        -- before the last hour
        select 'message_numbers',
            (select q.last_value from pubsub_data.message_numbers q where q.is_called),
            (
                select max(('x' || right(replace(m.message_id::text, '-', ''), 16))::bit(64)::bigint)
                    >> 17 << 17
                from pubsub_data.messages m
                where m.message_id >= pubsub.id_at(clock_timestamp() - interval '1 hour')
            )
    )
    select u.name, setval(format('pubsub_data.%I', u.name)::regclass, u.highest)
    from used u
    where u.highest > u.last_given or u.highest is not null and u.last_given is null
$$;

comment on function pubsub.reset_sequences is
    'Bring sequences that are behind the tables up to them; returns which were.';
