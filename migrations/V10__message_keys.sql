/*
 * Message keys: a job is queued once as long as it is queued. The previous binary keeps working: all of
 * it is behind the functions, which come with this. While it leads the maintenance, it forgets no keys, and
 * partitions of messages that have any stay as long.
 */

/*
 * Which message of a topic was the last one to be published under a key. The row outlives the message's
 * deliveries, so that acks need not know of keys: whoever publishes under the key then takes it over. It
 * leaves before the message does.
 */
create table pubsub_data.message_keys (
    topic_key bigint not null,
    message_key text collate "C" not null,
    message_id uuid not null,
    primary key (topic_key, message_key),
    constraint message_keys_message_key_valid check (char_length(message_key) between 1 and 256)
);

-- ids are a range of time, like the partitions of messages
create index message_keys_message_idx on pubsub_data.message_keys (message_id);

/* Whoever may use deliveries may use keys: roles with rights of their own go on as they are. */
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
        execute format('grant %s on pubsub_data.message_keys to %s',
            v_granted.privilege, v_granted.grantee);
    end loop;
end
$$;
