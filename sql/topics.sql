/*
 * A topic is a name that messages are published to. Functions take and return its public id; the
 * engine's tables use topic_key.
 */

/*
 * create_topic
 *
 * Errors   PS409 the id is taken · PS422 (id) bad characters or length
 */
create function pubsub.create_topic(p_topic_id text)
returns table (id text, created_at timestamptz)
language plpgsql volatile
as $$
begin
    if p_topic_id is null or p_topic_id !~ '^[a-zA-Z0-9._-]{1,128}$' then
        perform pubsub.fail_validation('id',
            'topic id must be 1 to 128 characters of a-z, A-Z, 0-9, ".", "_" and "-"');
    end if;
    return query
        insert into pubsub_data.topics as t (topic_id)
        values (p_topic_id)
        on conflict (topic_id) do nothing
        returning t.topic_id, t.created_at;
    if not found then
        raise exception 'This topic already exists' using errcode = 'PS409';
    end if;
end
$$;

comment on function pubsub.create_topic is 'Create a topic.';

/*
 * get_topic
 *
 * Errors   PS404
 */
create function pubsub.get_topic(p_topic_id text)
returns table (id text, created_at timestamptz)
language plpgsql stable parallel safe
as $$
begin
    return query
        select t.topic_id, t.created_at from pubsub_data.topics t where t.topic_id = p_topic_id;
    if not found then
        raise exception 'Topic not found' using errcode = 'PS404';
    end if;
end
$$;

comment on function pubsub.get_topic is 'One topic by its id.';

/*
 * list_topics — a page of topics in the byte order of their ids.
 */
create function pubsub.list_topics(p_offset bigint default 0, p_limit int default 10)
returns table (id text, created_at timestamptz)
language sql stable parallel safe
as $$
    select t.topic_id, t.created_at
    from pubsub_data.topics t
    order by t.topic_id
    offset p_offset limit p_limit
$$;

comment on function pubsub.list_topics is 'A page of topics, ordered by id.';

/*
 * delete_topic — with its subscriptions and everything in them.
 *
 * Errors   PS404
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
    with gone as (
        delete from pubsub_data.subscriptions s
        where s.topic_key = v_topic_key
        returning s.topic_key, s.subscription_key
    )
    insert into pubsub_data.deleted_subscriptions (topic_key, subscription_key)
    select g.topic_key, g.subscription_key from gone g;
    delete from pubsub_data.topics t where t.topic_key = v_topic_key;
end
$$;

comment on function pubsub.delete_topic is 'Delete a topic, its subscriptions and their messages.';
