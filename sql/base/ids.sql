/*
 * Ids. Those of topics and subscriptions are chosen by people; front doors may allow less.
 *
 * Message ids are UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then a sequence number where the
 * random bits go, so that id order is publish order and a range of ids is a range of time.
 */

/*
 * id_at — the lowest id a message published at p_at can have.
 *
 * Out      uuid; times before 1970 give the lowest uuid
 */
create function pubsub.id_at(p_at timestamptz)
returns uuid
-- neither strict nor immutable, which would keep Postgres from inlining it
language sql stable parallel safe
begin atomic
    select case when p_at is not null then
        (lpad(to_hex((greatest(0, date_part('epoch', p_at)) * 1000000)::bigint / 1000), 12, '0')
        || '00000000000000000000')::uuid
    end;
end;

comment on function pubsub.id_at is
    'The lowest message id of a time: compare ids with it to select by publish time.';

/*
 * id_time — when a message was published, to the millisecond, read from its id.
 */
create function pubsub.id_time(p_message_id uuid)
returns timestamptz
language sql immutable parallel safe
begin atomic
    select to_timestamp(
        ('x' || translate(left(p_message_id::text, 13), '-', ''))::bit(48)::bigint / 1000.0);
end;

comment on function pubsub.id_time is 'The publish time in a message id, to the millisecond.';

/*
 * seek_end — the id up to which messages of a topic have been published by now.
 *
 * Out      that of now, or of the topic's newest message: those from before the clock was set back lie
 *          ahead of it
 */
create function pubsub.seek_end(p_topic_key bigint)
returns uuid
language plpgsql stable parallel safe
set enable_seqscan = off
as $$
begin
    return pubsub.id_at(greatest(clock_timestamp(), (
        select pubsub.id_time(m.message_id)
        from pubsub_data.messages m
        where m.topic_key = p_topic_key
        order by m.message_id desc
        limit 1
    )) + interval '1 ms');
end
$$;

comment on function pubsub.seek_end is
    'A message id above all of a topic that were published by now.';

/*
 * new_message_number — the number up to which message ids were given by now: their last 16 digits.
 *
 * Out      later ids end in a higher one, also when the clock is set back
 */
create function pubsub.new_message_number()
returns text
language sql volatile
as $$
    select to_hex(nextval('pubsub_data.message_numbers'))
$$;

comment on function pubsub.new_message_number is
    'A number in which no message id ends; later ids end in higher ones.';

/*
 * oldest_open_id — an id below which every publish has committed or rolled back.
 *
 * Out      the begin of the oldest transaction that has written and is open, and 10 s back at least:
 *          an id is older than its commit. It does not see transactions that pg_stat_activity hides
 *          from this role, nor prepared ones
 */
create function pubsub.oldest_open_id()
returns uuid
language sql volatile parallel restricted
as $$
    -- what is there now, not what this transaction saw when it first looked
    select pg_stat_clear_snapshot();
    select pubsub.id_at(least(clock_timestamp() - interval '10 seconds', min(a.xact_start)))
    from pg_stat_activity a
    where a.datname = current_database() and a.backend_xid is not null
        and a.pid <> pg_backend_pid()
$$;

comment on function pubsub.oldest_open_id is
    'A message id below which every publish has committed or rolled back.';

/*
 * check_id — refuse what cannot be the id of a topic or subscription.
 *
 * Errors   PS422 (id)
 */
create function pubsub.check_id(p_kind text, p_id text)
returns void
language plpgsql immutable parallel safe
as $$
begin
    -- "C": the same characters in every database
    if p_id is null or char_length(p_id) not between 1 and 600
        or p_id collate "C" ~ '[[:space:][:cntrl:]]'
    then
        perform pubsub.fail_validation('id', p_kind
            || ' id must be 1 to 600 characters without space or control characters');
    end if;
end
$$;

comment on function pubsub.check_id is
    'Refuse what cannot be the id of a topic or subscription: PS422.';
