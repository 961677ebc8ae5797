/*
 * Runs: one row stands for the deliveries of many messages of one publish. The previous binary keeps
 * working: all of it is behind the functions, which come with this.
 */

/*
 * Messages of one publish call that nobody has treated differently yet, of one subscription: all are ready, or
 * all are leased by one claim. Whoever wants to treat one of them differently breaks the run up into
 * deliveries first.
 */
create table pubsub_data.runs (
    topic_key bigint not null,
    subscription_key bigint not null,
    -- its first message
    run_id uuid not null,
    message_ids uuid[] not null,
    -- whether any of the messages may be large
    is_large boolean not null,
    -- the claim that holds them; null: they are ready, and none was ever delivered
    lease bigint,
    leased_at timestamptz,
    ack_deadline timestamptz,
    consumer_id text,
    primary key (topic_key, subscription_key, run_id)
) with (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

-- uncompressed: compressing ids costs more than it saves
alter table pubsub_data.runs alter column message_ids set storage external;

/*
 * How long the runs of a subscription are made: what its consumers asked for at least, lately; 1: none are made.
 * Apart from subscriptions and without a foreign key, since claims change it, and nobody who locks or deletes a
 * subscription shall wait for them.
 */
create table pubsub_data.run_sizes (
    topic_key bigint not null,
    subscription_key bigint not null,
    run_size int not null default 1,
    noted_at timestamptz not null default '-infinity',
    primary key (topic_key, subscription_key),
    constraint run_sizes_run_size_valid check (run_size between 1 and 100)
);

insert into pubsub_data.run_sizes (topic_key, subscription_key)
select s.topic_key, s.subscription_key from pubsub_data.subscriptions s;

-- the runs that a claim leased
alter table pubsub_data.wakeups add column run_ids uuid[];
alter table pubsub_data.wakeups alter column run_ids set storage external;

/*
 * A publish in runs takes one number and gives its messages that and those after it, so that their ids follow
 * one another and no other's lie between. Numbers are multiples of this from here on.
 */
alter sequence pubsub_data.message_numbers increment by 131072;
select setval('pubsub_data.message_numbers', ((q.last_value >> 17) + 1) << 17, false)
from pubsub_data.message_numbers q
where q.is_called;

/* Whoever may use deliveries may use runs: roles with rights of their own go on as they are. */
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
        execute format('grant %s on pubsub_data.runs, pubsub_data.run_sizes to %s',
            v_granted.privilege, v_granted.grantee);
    end loop;
end
$$;
