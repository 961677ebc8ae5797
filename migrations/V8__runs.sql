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

-- how long runs are made: what consumers asked for at least, lately; 1: no runs
alter table pubsub_data.subscriptions add column run_size int not null default 1;
alter table pubsub_data.subscriptions
add column run_size_at timestamptz not null default '-infinity';

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
