/*
 * The log of a topic: every message that was published to it and is still retained, whoever has received it, without
 * a subscription. Nothing is leased and nothing settled.
 *
 * Ids are drawn before their transaction commits, so a message that is committed late appears below others that were
 * there before: whoever reads on from the last one he saw passes it. read_messages with p_complete ends before that
 * can happen. Subscriptions miss none in any case. After the clock of the database was set back, new messages lie below
 * those of before the step, for as long as that was.
 *
 * Topics that were created with index_ordering_keys have their messages in an index by ordering key. Of others, to read
 * those of a key is to read over all.
 *
 * Plans: messages of an indexed ordering key are read in the order of their index, which has one hash of topic and key.
 * No other index can serve: the topic is compared in a way that none knows, and nothing may be sorted. Else the planner
 * could choose to read the whole topic for a key that is rare.
 */

/*
 * key_page — messages of an ordering key in a topic that has them indexed, in publish order.
 *
 * In and out as log_page
 */
create function pubsub.key_page(
    p_topic_key bigint, p_ordering_key text, p_after uuid, p_before uuid, p_limit int
)
returns table (message_id uuid)
language plpgsql stable parallel safe rows 100
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now constant timestamptz := clock_timestamp();
begin
    return query
        select m.message_id
        from pubsub_data.messages m
        where hashtextextended(m.ordering_key, m.topic_key)
                = hashtextextended(p_ordering_key, p_topic_key)
            and m.message_id > p_after
            and m.message_id < p_before
            and (m.expires_at is null or m.expires_at > v_now)
            and (m.deliver_at is null or m.deliver_at <= v_now)
            and m.ordering_key = p_ordering_key
            and m.topic_key < 0
            and m.topic_key is not distinct from p_topic_key
        order by m.message_id
        limit p_limit;
end
$$;

comment on function pubsub.key_page is
    'Messages of an indexed ordering key in a topic between two ids, in publish order.';

/*
 * log_page — messages of a topic in publish order.
 *
 * In       p_after, p_before: only ids between; p_ordering_keys: only of these, each named once; null: all
 * Out      not those that have expired, or are delayed until later
 */
create function pubsub.log_page(
    p_topic_key bigint, p_after uuid, p_before uuid, p_ordering_keys text[], p_limit int
)
returns table (
    message_id uuid, payload jsonb, attributes jsonb, ordering_key text, priority smallint,
    published_at timestamptz, expires_at timestamptz
)
language plpgsql stable parallel safe
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now constant timestamptz := clock_timestamp();
begin
    if p_ordering_keys is null or p_topic_key > 0 then
        return query
            select m.message_id, m.payload, m.attributes, m.ordering_key, m.priority, m.published_at,
                m.expires_at
            from pubsub_data.messages m
            where m.topic_key = p_topic_key
                and m.message_id > p_after
                and m.message_id < p_before
                and (p_ordering_keys is null or m.ordering_key = any(p_ordering_keys))
                and (m.expires_at is null or m.expires_at > v_now)
                and (m.deliver_at is null or m.deliver_at <= v_now)
            order by m.message_id
            limit p_limit;
        return;
    end if;
    return query
        select m.message_id, m.payload, m.attributes, m.ordering_key, m.priority, m.published_at,
            m.expires_at
        from (
            -- the ids alone: each key may have as many as are wanted
            select i.message_id
            from unnest(p_ordering_keys) as k (ordering_key)
            cross join lateral pubsub.key_page(
                p_topic_key, k.ordering_key, p_after, p_before, p_limit) i
            order by i.message_id
            limit p_limit
        ) i
        cross join lateral (
            select x.*
            from pubsub_data.messages x
            where x.topic_key = p_topic_key and x.message_id = i.message_id
            limit 1
        ) m;
end
$$;

comment on function pubsub.log_page is
    'Messages of a topic between two ids in publish order, of all or of some ordering keys.';

/*
 * check_log_keys — the key of a topic whose log is read, of ordering keys that may be asked for.
 *
 * Errors   PS404 · PS422 (ordering_key 1 to 100 of them, each 1 to 1024 characters)
 */
create function pubsub.check_log_keys(p_topic_id text, p_ordering_keys text[])
returns bigint
language plpgsql stable parallel safe
as $$
declare
    v_topic_key bigint;
begin
    if cardinality(p_ordering_keys) not between 1 and 100 then
        perform pubsub.fail_validation('ordering_key', 'ordering_key must be 1 to 100 keys');
    end if;
    if exists (
        select from unnest(p_ordering_keys) as k (ordering_key)
        where char_length(k.ordering_key) between 1 and 1024 is not true
    ) then
        perform pubsub.fail_validation('ordering_key', 'ordering_key must be 1 to 1024 characters');
    end if;
    select t.topic_key into v_topic_key
    from pubsub_data.topics t where t.topic_id = p_topic_id;
    if not found then
        raise exception 'Topic not found' using errcode = 'PS404';
    end if;
    return v_topic_key;
end
$$;

comment on function pubsub.check_log_keys is
    'The key of a topic whose log is read; refuses ordering keys that no message can have.';

/*
 * read_messages — a page of a topic's log, oldest first.
 *
 * In       p_after: only ids after it, which need not be there; p_ordering_keys: only of these, all in one order;
 *          p_since: only what was published at or after it, to the millisecond; p_max_bytes: the messages have no
 *          more as JSON text, and 1000 bytes each for what comes with them, though the first one is returned
 *          whatever its size; null: no bound; p_complete: end before anything that a transaction which is open may
 *          still come below: some 10 seconds back, or where the oldest of these began
 * Out      nothing that has expired, or is delayed until later. May have fewer than p_limit; what is empty is the
 *          end
 * Errors   PS404 · PS422 (limit 1 to 1000, max_bytes below 1, ordering_key)
 * Effects  none. Reads over what has expired, and over other ordering keys where they are not indexed, up to the last
 *          row it returns. p_complete needs read committed
 */
create function pubsub.read_messages(
    p_topic_id text, p_after uuid default null, p_limit int default 100,
    p_ordering_keys text[] default null, p_since timestamptz default null,
    p_max_bytes bigint default null, p_complete boolean default false
)
returns table (
    message_id uuid, payload jsonb, attributes jsonb, ordering_key text, priority smallint,
    published_at timestamptz, expires_at timestamptz
)
language plpgsql volatile parallel restricted
as $$
declare
    c_lowest constant uuid := '00000000-0000-0000-0000-000000000000';
    c_highest constant uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
    v_topic_key constant bigint := pubsub.check_log_keys(p_topic_id, p_ordering_keys);
    v_before uuid := c_highest;
    v_bytes bigint := 0;
    v_message record;
begin
    if p_limit is null or p_limit not between 1 and 1000 then
        perform pubsub.fail_validation('limit', 'limit must be 1 to 1000');
    end if;
    if p_max_bytes < 1 then
        perform pubsub.fail_validation('max_bytes', 'max_bytes must be at least 1');
    end if;
    if p_complete then
        -- before the statement that reads: it sees what has committed by then
        v_before := pubsub.oldest_open_id();
    end if;
    for v_message in
        select l.*,
            case when p_max_bytes is not null then 1000 + octet_length(l.payload::text)
                + coalesce(octet_length(l.attributes::text), 0)
                + coalesce(octet_length(l.ordering_key), 0) end as bytes
        from pubsub.log_page(v_topic_key,
            -- no message has the lowest id of a time
            greatest(c_lowest, p_after, pubsub.id_at(p_since)), v_before,
            case when p_ordering_keys is not null then array(
                select distinct k.ordering_key from unnest(p_ordering_keys) as k (ordering_key))
            end, p_limit) l
    loop
        v_bytes := v_bytes + v_message.bytes;
        exit when message_id is not null and v_bytes > p_max_bytes;
        message_id := v_message.message_id;
        payload := v_message.payload;
        attributes := v_message.attributes;
        ordering_key := v_message.ordering_key;
        priority := v_message.priority;
        published_at := v_message.published_at;
        expires_at := v_message.expires_at;
        return next;
    end loop;
end
$$;

comment on function pubsub.read_messages is
    'A page of the messages that a topic retains, in publish order, without a subscription.';

/*
 * nth_newest_of_key — nth_newest_messages of one indexed ordering key; null when it has fewer.
 */
create function pubsub.nth_newest_of_key(
    p_topic_key bigint, p_ordering_key text, p_n int, p_after uuid
)
returns uuid
language plpgsql stable parallel safe
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set plan_cache_mode = force_generic_plan
as $$
begin
    return (
        select m.message_id
        from pubsub_data.messages m
        where hashtextextended(m.ordering_key, m.topic_key)
                = hashtextextended(p_ordering_key, p_topic_key)
            and m.message_id > p_after
            and m.ordering_key = p_ordering_key
            and m.topic_key < 0
            and m.topic_key is not distinct from p_topic_key
        order by m.message_id desc
        offset p_n - 1 limit 1
    );
end
$$;

comment on function pubsub.nth_newest_of_key is
    'Where the newest so many messages of an indexed ordering key begin; null: it has fewer.';

/*
 * nth_newest_messages — where the newest p_n messages begin that a topic retains, of each ordering key.
 *
 * In       p_ordering_keys: null: of the topic in all; p_since: of those published since
 * Out      the p_n-th newest message, expired ones counted; no row for a key that has fewer
 * Errors   PS404 · PS422 (n 1 to 10000000, ordering_key)
 * Effects  none. Reads p_n index entries a key, or as many as there are; those of the topic where its ordering keys are
 *          not indexed
 */
create function pubsub.nth_newest_messages(
    p_topic_id text, p_n int, p_ordering_keys text[] default null, p_since timestamptz default null
)
returns table (ordering_key text, message_id uuid)
language plpgsql stable parallel safe
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_topic_key constant bigint := pubsub.check_log_keys(p_topic_id, p_ordering_keys);
    v_after constant uuid :=
        greatest('00000000-0000-0000-0000-000000000000', pubsub.id_at(p_since));
begin
    if p_n is null or p_n not between 1 and 10000000 then
        perform pubsub.fail_validation('n', 'n must be 1 to 10000000');
    end if;
    if p_ordering_keys is null then
        return query
            select null::text, m.message_id
            from pubsub_data.messages m
            where m.topic_key = v_topic_key and m.message_id > v_after
            order by m.message_id desc
            offset p_n - 1 limit 1;
        return;
    end if;
    if v_topic_key > 0 then
        return query
            select n.ordering_key, n.message_id
            from (
                select m.ordering_key, m.message_id,
                    row_number() over (partition by m.ordering_key order by m.message_id desc) as position
                from pubsub_data.messages m
                where m.topic_key = v_topic_key
                    and m.message_id > v_after
                    and m.ordering_key = any(p_ordering_keys)
            ) n
            where n.position = p_n
            order by n.ordering_key;
        return;
    end if;
    return query
        select k.ordering_key, m.message_id
        from (select distinct u.ordering_key from unnest(p_ordering_keys) as u (ordering_key)) k
        cross join lateral (
            select pubsub.nth_newest_of_key(v_topic_key, k.ordering_key, p_n, v_after) as message_id
        ) m
        where m.message_id is not null
        order by k.ordering_key;
end
$$;

comment on function pubsub.nth_newest_messages is
    'Where the newest so many messages of a topic begin, of each of some ordering keys or in all.';
