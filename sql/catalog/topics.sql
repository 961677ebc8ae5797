/*
 * A topic is a name that messages are published to. Functions take and return its public id; the
 * engine's tables use topic_key.
 *
 * The key of a topic whose messages are in the index of ordering keys is below 0. It is all that a message's row
 * says of its topic, and which messages an index has must be read off their rows. Other topics do not pay for it.
 */

/*
 * check_message_retention — refuse a retention that is out of range.
 *
 * Errors   PS422 (message_retention_seconds)
 */
create function pubsub.check_message_retention(p_seconds numeric)
returns void
language plpgsql immutable parallel safe
as $$
begin
    if p_seconds not between 0 and 31536000 or p_seconds <> trunc(p_seconds) then
        perform pubsub.fail_validation('message_retention_seconds',
            'message_retention_seconds must be 0 to 31536000');
    end if;
end
$$;

comment on function pubsub.check_message_retention is
    'Refuse a message_retention_seconds that is out of range.';

/*
 * add_topic — create a topic, if there is none of that id.
 *
 * In       p_index_ordering_keys: as create_topic
 * Out      whether it was created
 * Errors   those of create_topic but PS409
 * Locks    waits for whoever creates or deletes it
 */
create function pubsub.add_topic(
    p_topic_id text, p_message_retention_seconds int, p_index_ordering_keys boolean default false
)
returns boolean
language plpgsql volatile
as $$
declare
    v_topic_key bigint;
begin
    perform pubsub.check_id('topic', p_topic_id);
    perform pubsub.check_message_retention(p_message_retention_seconds);
    if p_index_ordering_keys then
        insert into pubsub_data.topics as t (topic_key, topic_id, message_retention_seconds)
        overriding system value
        values (-nextval('pubsub_data.topics_topic_key_seq'), p_topic_id, p_message_retention_seconds)
        on conflict do nothing
        returning t.topic_key into v_topic_key;
    else
        insert into pubsub_data.topics as t (topic_id, message_retention_seconds)
        values (p_topic_id, p_message_retention_seconds)
        on conflict do nothing
        returning t.topic_key into v_topic_key;
    end if;
    if v_topic_key is null then
        -- not by the id: what has it may be deleted by now
        if exists (
            select from pubsub_data.topics t
            where abs(t.topic_key) = currval('pubsub_data.topics_topic_key_seq')
        ) then
            perform pubsub.fail_sequences();
        end if;
        return false;
    end if;
    perform pubsub.check_topic_key(v_topic_key);
    return true;
end
$$;

comment on function pubsub.add_topic is 'Create a topic, if there is none of that id; whether it was.';

/*
 * create_topic
 *
 * In       p_message_retention_seconds: how long messages are kept for replay; null: as long as the
 *          server keeps them. p_index_ordering_keys: read_messages finds those of an ordering key at once; for good,
 *          and publishes of messages that have one cost more
 * Errors   PS409 the id is taken · PS422 (id) its characters or length,
 *          (message_retention_seconds) not 0 to 31536000 · PS503 the sequences are behind
 */
create function pubsub.create_topic(
    p_topic_id text, p_message_retention_seconds int default null,
    p_index_ordering_keys boolean default false
)
returns table (
    id text, created_at timestamptz, message_retention_seconds int, index_ordering_keys boolean
)
language plpgsql volatile
as $$
begin
    if not pubsub.add_topic(p_topic_id, p_message_retention_seconds, p_index_ordering_keys) then
        raise exception 'This topic already exists' using errcode = 'PS409';
    end if;
    return query select g.* from pubsub.get_topic(p_topic_id) g;
end
$$;

comment on function pubsub.create_topic is 'Create a topic.';

/*
 * get_topic
 *
 * Errors   PS404
 */
create function pubsub.get_topic(p_topic_id text)
returns table (
    id text, created_at timestamptz, message_retention_seconds int, index_ordering_keys boolean
)
language plpgsql stable parallel safe
as $$
begin
    return query
        select t.topic_id, t.created_at, t.message_retention_seconds, t.topic_key < 0
        from pubsub_data.topics t where t.topic_id = p_topic_id;
    if not found then
        raise exception 'Topic not found' using errcode = 'PS404';
    end if;
end
$$;

comment on function pubsub.get_topic is 'One topic by its id.';

/*
 * list_topics — a page of topics in the byte order of their ids.
 *
 * In       p_after: only ids after it, which need not be there; p_allowed: only what matches it
 *          (matches_any)
 */
create function pubsub.list_topics(
    p_offset bigint default 0, p_limit int default 10, p_after text default null,
    p_allowed text[] default null
)
returns table (
    id text, created_at timestamptz, message_retention_seconds int, index_ordering_keys boolean
)
language sql stable parallel safe
as $$
    select t.topic_id, t.created_at, t.message_retention_seconds, t.topic_key < 0
    from pubsub_data.topics t
    where t.topic_id > coalesce(p_after, '')
        and pubsub.matches_any(t.topic_id, p_allowed)
    order by t.topic_id
    offset p_offset limit p_limit
$$;

comment on function pubsub.list_topics is 'A page of topics, ordered by id.';

/*
 * update_topic — change settings of a topic; those that are not named stay.
 *
 * In       p_changes: {"message_retention_seconds": 0 to 31536000, or null for the server's}
 * Errors   PS404 · PS422 (field) unknown, of another type or out of range
 * Effects  at commit; what is older than a shorter retention leaves at the next clean-up
 */
create function pubsub.update_topic(p_topic_id text, p_changes json)
returns table (
    id text, created_at timestamptz, message_retention_seconds int, index_ordering_keys boolean
)
language plpgsql volatile
as $$
declare
    v_changes constant jsonb := p_changes;
    v_retention constant jsonb := v_changes -> 'message_retention_seconds';
begin
    perform pubsub.check_setting_names(v_changes, array['message_retention_seconds']);
    if jsonb_typeof(v_retention) not in ('number', 'null') then
        perform pubsub.fail_validation('message_retention_seconds',
            'message_retention_seconds must be 0 to 31536000');
    end if;
    perform pubsub.check_message_retention((v_retention #>> '{}')::numeric);
    return query
        update pubsub_data.topics t
        set message_retention_seconds = case when v_retention is null
            then t.message_retention_seconds else (v_retention #>> '{}')::numeric::int end
        where t.topic_id = p_topic_id
        returning t.topic_id, t.created_at, t.message_retention_seconds, t.topic_key < 0;
    if not found then
        raise exception 'Topic not found' using errcode = 'PS404';
    end if;
end
$$;

comment on function pubsub.update_topic is 'Change settings of a topic; returns it.';

/*
 * delete_topic — with its subscriptions and everything in them.
 *
 * Errors   PS404
 * Locks    the topic, then its subscriptions and those whose dead letter topic it is, by topic and id
 * Effects  instant; the rows of the subscriptions are purged later, by purge_deleted_subscriptions
 */
create function pubsub.delete_topic(p_topic_id text)
returns void
language plpgsql volatile
as $$
declare
    v_topic_key bigint;
begin
    select t.topic_key into v_topic_key
    from pubsub_data.topics t where t.topic_id = p_topic_id for update;
    if not found then
        raise exception 'Topic not found' using errcode = 'PS404';
    end if;
    -- the topic's row is held: nobody adds to them
    perform 1
    from pubsub_data.subscriptions s
    where s.topic_key = v_topic_key or s.dead_letter_topic_key = v_topic_key
    -- not by key: a purge changes it
    order by s.topic_key, s.subscription_id
    for update;
    with gone as (
        delete from pubsub_data.subscriptions s
        where s.topic_key = v_topic_key
        returning s.topic_key, s.subscription_key
    )
    insert into pubsub_data.deleted_subscriptions (topic_key, subscription_key)
    select g.topic_key, g.subscription_key from gone g;
    update pubsub_data.subscriptions s
    set dead_letter_topic_key = null
    where s.dead_letter_topic_key = v_topic_key;
    delete from pubsub_data.topics t where t.topic_key = v_topic_key;
end
$$;

comment on function pubsub.delete_topic is 'Delete a topic, its subscriptions and their messages.';
