/*
 * Push: a subscription may have an endpoint that its messages are sent to, and acks may say how that went. The
 * previous binary keeps working: it neither knows nor reads what is new, and all that writes it is behind the
 * functions, which come with this. What is sent to endpoints, servers of before do not send. No row is rewritten.
 */

/*
 * Where the messages of a subscription are sent to, and whether that works. It is written when that changes, not by
 * every push.
 */
create table pubsub_data.push_endpoints (
    topic_key bigint not null,
    subscription_key bigint not null,
    endpoint text not null,
    -- for an answer
    timeout_seconds int not null,
    -- sent with each push: values by name
    headers jsonb not null,
    -- who may see the table need not see the values
    header_names text[] not null,
    -- not a hash: it signs
    secret text not null,
    -- the one before, which signs beside it until then
    previous_secret text,
    previous_secret_until timestamptz,
    -- in a row
    failures int not null default 0,
    -- nothing is sent before; null: it is not paused; infinity: until it is set again
    paused_until timestamptz,
    -- after a pause one push is let through, and decides
    is_probed boolean not null default false,
    last_error text,
    last_failed_at timestamptz,
    primary key (topic_key, subscription_key),
    -- a purge gives the subscription another key
    constraint push_endpoints_subscription_fk foreign key (topic_key, subscription_key)
        references pubsub_data.subscriptions on delete cascade on update cascade,
    constraint push_endpoints_timeout_seconds_valid check (timeout_seconds between 1 and 60),
    constraint push_endpoints_previous_secret_ends
        check ((previous_secret is null) = (previous_secret_until is null))
);

-- what the consumer said, as reason of failures; null mostly
alter table pubsub_data.acked add column note text;

/*
 * Whoever may look at subscriptions may look at endpoints, but for what is secret in them; whoever may do everything
 * with subscriptions may do so with endpoints: roles with rights of their own go on as they are.
 */
do $$
declare
    v_grantee record;
begin
    for v_grantee in
        select case when g.grantee = 0 then 'public' else g.grantee::regrole::text end as name,
            array['SELECT', 'INSERT', 'UPDATE', 'DELETE'] <@ array_agg(g.privilege_type) as does_all
        from pg_class c
        cross join aclexplode(c.relacl) g
        where c.oid = 'pubsub_data.subscriptions'::regclass and g.grantee <> c.relowner
        group by g.grantee
        having 'SELECT' = any(array_agg(g.privilege_type))
    loop
        if v_grantee.does_all then
            execute format('grant select, insert, update, delete on pubsub_data.push_endpoints to %s',
                v_grantee.name);
        else
            execute format('grant select (topic_key, subscription_key, endpoint, timeout_seconds, header_names, '
                'previous_secret_until, failures, paused_until, is_probed, last_error, last_failed_at) '
                'on pubsub_data.push_endpoints to %s', v_grantee.name);
        end if;
    end loop;
end
$$;
