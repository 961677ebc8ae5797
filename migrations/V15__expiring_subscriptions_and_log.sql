/*
 * Subscriptions that vanish when nobody keeps them, and a way to the messages of an ordering key in a topic. The
 * previous binary keeps working: all of it is behind the functions, which come with this. It makes no subscription
 * that expires; of those that there are, its claims keep them, its waits do not.
 */

alter table pubsub_data.subscriptions
    -- after how long without anybody it is deleted; null: never
    add column expires_after_seconds int,
    add constraint subscriptions_expires_after_seconds_valid
        check (expires_after_seconds between 10 and 31536000);

/*
 * When somebody was there for a subscription that expires. Append only, so that nobody who claims waits for another
 * who does; rows leave when they matter no more.
 */
create table pubsub_data.kept_subscriptions (
    topic_key bigint not null,
    subscription_key bigint not null,
    kept_at timestamptz not null
);
alter table pubsub_data.kept_subscriptions replica identity full;

create index kept_subscriptions_idx
on pubsub_data.kept_subscriptions (topic_key, subscription_key, kept_at);

/*
 * The messages of an ordering key of a topic in publish order, for topics that were created for it, whose keys are
 * below 0: publishing to others costs nothing more. By a hash, since a key may be longer than an index allows; of both, so
 * that no query that is meant for it can use the primary key. Making it reads every stored message once.
 */
create index messages_ordering_key_idx
on pubsub_data.messages (hashtextextended(ordering_key, topic_key), message_id)
where ordering_key is not null and topic_key < 0;

/* Whoever may use deliveries may keep subscriptions: roles with rights of their own go on as they are. */
do $$
declare
    v_granted record;
begin
    for v_granted in
        select g.privilege_type as privilege,
            case when g.grantee = 0 then 'public' else g.grantee::regrole::text end as grantee
        from pg_class c
        cross join aclexplode(c.relacl) g
        where c.oid = 'pubsub_data.deliveries'::regclass and g.grantee <> c.relowner
    loop
        execute format('grant %s on pubsub_data.kept_subscriptions to %s',
            v_granted.privilege, v_granted.grantee);
    end loop;
end
$$;
