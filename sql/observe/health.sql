/*
 * What kills a queue on Postgres, as facts to look at: transactions, replication slots and prepared
 * transactions that keep vacuum from removing dead rows, slots that fill the disk with WAL, tables
 * that bloat, messages that nobody consumes.
 *
 * A fact has a name, which is also that of its gauge (pubsub_<name>), a subject where there are
 * several, a value (null where this role may not see it) and, while it is past its bound, a warning.
 * The bounds stand in pubsub.health; another bound for one of them is a setting:
 *
 *     alter database app set "pubsub.warn_oldest_snapshot_age_seconds" = '3600';
 *
 * Without pg_read_all_stats the age in seconds of other roles' transactions is not visible; their age
 * in transactions is.
 */

create view pubsub.horizon_holders as
select 'session' as kind, a.pid::text as name, a.usename::text as role,
    a.application_name as application, a.state,
    extract(epoch from clock_timestamp() - a.xact_start)::float8 as age_seconds,
    greatest(age(a.backend_xmin), age(a.backend_xid)) as age_transactions,
    format('end it with: select pg_terminate_backend(%s)', a.pid) as remedy
from pg_catalog.pg_stat_activity a
where (a.backend_xmin is not null or a.backend_xid is not null)
    -- a standby's feedback belongs to no database and holds back all of them
    and (a.datname = current_database() or a.datid is null)
    and a.pid <> pg_backend_pid()
    -- vacuum ignores vacuums
    and not exists (
        select from pg_catalog.pg_stat_progress_vacuum v where v.pid = a.pid
    )
union all
select 'prepared transaction', p.gid, p.owner::text, null, 'prepared',
    extract(epoch from clock_timestamp() - p.prepared)::float8, age(p.transaction),
    format('end it with: rollback prepared %L', p.gid)
from pg_catalog.pg_prepared_xacts p
where p.database = current_database()
union all
-- its age in seconds is not recorded
select 'replication slot', s.slot_name::text, null, s.plugin::text,
    case when s.active then 'active' else 'inactive' end,
    null, greatest(age(s.xmin), age(s.catalog_xmin)),
    format('if nobody reads it, drop it with: select pg_drop_replication_slot(%L)', s.slot_name)
from pg_catalog.pg_replication_slots s
where s.xmin is not null or s.catalog_xmin is not null;

comment on view pubsub.horizon_holders is
    'Who keeps vacuum from removing dead rows of this database: sessions in a transaction, prepared '
    'transactions, replication slots, each with its age and what ends it.';

create view pubsub.health as
with held as (
    select h.age_seconds, h.age_transactions,
        format('%s %s (%s) keeps vacuum from removing dead rows; %s', h.kind, h.name,
            concat_ws(', ', nullif(h.role, ''), nullif(h.application, ''), h.state), h.remedy
        ) as advice,
        h.kind <> 'replication slot' as is_transaction
    from pubsub.horizon_holders h
), slot as (
    select s.slot_name::text as name, s.active,
        greatest(age(s.xmin), age(s.catalog_xmin)) as age_transactions,
        pg_wal_lsn_diff(
            case when pg_is_in_recovery() then pg_last_wal_receive_lsn()
                else pg_current_wal_lsn() end,
            s.restart_lsn
        ) as retained_bytes
    from pg_catalog.pg_replication_slots s
), stored as (
    -- partitions with the table they are part of
    select r.relname::text as name,
        sum(pg_stat_get_live_tuples(c.oid)) as live_rows,
        sum(pg_stat_get_dead_tuples(c.oid)) as dead_rows,
        sum(pg_table_size(c.oid)) as table_bytes,
        sum(pg_indexes_size(c.oid)) as index_bytes,
        max(pg_stat_get_last_autovacuum_time(c.oid)) as autovacuumed_at
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    left join pg_catalog.pg_inherits i on i.inhrelid = c.oid
    join pg_catalog.pg_class r on r.oid = coalesce(i.inhparent, c.oid)
    where n.nspname = 'pubsub_data' and c.relkind = 'r'
    group by r.relname
), unacked as (
    -- one probe of the primary key for each
    select s.subscription_id as name,
        coalesce(extract(epoch from clock_timestamp() - pubsub.id_time(oldest.message_id)), 0)
            as age_seconds
    from (
        select s.subscription_id, s.topic_key, s.subscription_key
        from pubsub_data.subscriptions s
        order by s.subscription_id
        limit 1000
    ) s
    left join lateral (
        -- as oldest_unsettled, which not everybody may call who reads this
        select least((
            select d.message_id
            from pubsub_data.deliveries d
            where d.topic_key = s.topic_key and d.subscription_key = s.subscription_key
            order by d.message_id
            limit 1
        ), (
            select r.run_id
            from pubsub_data.runs r
            where r.topic_key = s.topic_key and r.subscription_key = s.subscription_key
            order by r.run_id
            limit 1
        )) as message_id
    ) oldest on true
), facts (name, subject, value, advice) as (
    select 'oldest_snapshot_age_seconds', null::text,
        -- null where there are some, but none may be seen
        case when count(*) = 0 then 0 else max(h.age_seconds) end::float8,
        (array_agg(h.advice order by h.age_seconds desc nulls last))[1]
    from held h
    where h.is_transaction
    union all
    select 'horizon_age_transactions', null, coalesce(max(h.age_transactions), 0),
        (array_agg(h.advice order by h.age_transactions desc nulls last))[1]
    from held h
    union all
    select 'wraparound_age_transactions', null, age(d.datfrozenxid),
        'vacuum does not keep up with freezing; at 2 billion Postgres takes no more writes: look for '
        'who holds it back in pubsub.horizon_holders, then run vacuum (freeze)'
    from pg_catalog.pg_database d
    where d.datname = current_database()
    union all
    select f.name, s.name, f.value, f.advice
    from slot s
    cross join lateral (
        values
            ('replication_slot_active', s.active::int::float8, null),
            ('replication_slot_horizon_age_transactions', s.age_transactions, null),
            ('replication_slot_retained_bytes', s.retained_bytes,
                case when not s.active then format('nobody reads the slot, and its WAL fills the '
                    'disk; drop it with: select pg_drop_replication_slot(%L)', s.name) end)
    ) f (name, value, advice)
    union all
    select f.name, t.name, f.value, f.advice
    from stored t
    cross join lateral (
        values
            ('table_live_rows', t.live_rows, null),
            ('table_dead_rows', t.dead_rows, case when t.dead_rows > t.live_rows then
                'more dead rows than live ones: see pubsub.horizon_holders for who keeps them, or '
                'let autovacuum have more workers' end),
            ('table_bytes', t.table_bytes, null),
            ('index_bytes', t.index_bytes, null),
            ('table_autovacuum_age_seconds',
                extract(epoch from clock_timestamp() - t.autovacuumed_at), null)
    ) f (name, value, advice)
    union all
    select 'oldest_unacked_age_seconds', u.name, u.age_seconds,
        'nobody acks it: start a consumer, or delete the subscription'
    from unacked u
), meanings (name, subject_kind, unit, bound, meaning) as (
    values
        ('oldest_snapshot_age_seconds', null::text, 'seconds', 300,
            'Age of the oldest transaction, prepared ones included, that keeps dead rows of this '
            'database'),
        ('horizon_age_transactions', null, 'transactions', 10000000,
            'How many transactions began since the oldest one that a session, a prepared transaction '
            'or a replication slot still wants to see'),
        ('wraparound_age_transactions', null, 'transactions', 1000000000,
            'Transactions since the oldest row that is not frozen; writes stop near 2 billion'),
        ('replication_slot_active', 'slot', 'boolean', null,
            'Whether somebody reads the slot'),
        ('replication_slot_horizon_age_transactions', 'slot', 'transactions', null,
            'How many transactions began since the oldest one whose dead rows the slot keeps'),
        ('replication_slot_retained_bytes', 'slot', 'bytes', 1073741824,
            'WAL on disk that the slot keeps; warned of while nobody reads it'),
        ('table_live_rows', 'table', 'rows', null,
            'Rows of the table, an estimate'),
        ('table_dead_rows', 'table', 'rows', 1000000,
            'Rows that vacuum has yet to remove, an estimate; warned of while they outnumber the '
            'live ones'),
        ('table_bytes', 'table', 'bytes', null,
            'Size on disk of the table, without its indexes'),
        ('index_bytes', 'table', 'bytes', null,
            'Size on disk of the indexes of the table'),
        ('table_autovacuum_age_seconds', 'table', 'seconds', null,
            'Time since autovacuum last finished the table'),
        ('oldest_unacked_age_seconds', 'subscription', 'seconds', 86400,
            'Time since the oldest unacked message of the subscription was published; of the first '
            '1000 subscriptions')
)
select f.name, m.subject_kind, f.subject, f.value, m.unit, m.meaning,
    case when f.value > coalesce(
        nullif(current_setting('pubsub.warn_' || f.name, true), '')::float8, m.bound
    ) then f.advice end as warning
from facts f
join meanings m on m.name = f.name;

comment on view pubsub.health is
    'What kills a queue on Postgres, a fact a row: name, subject (a table, slot or subscription), value, '
    'unit, meaning, and a warning while the value is past its bound.';

/*
 * list_health — pubsub.health, read as the service wants it.
 *
 * Errors   55P03 when a table stays locked for a second: a scrape must not queue behind a lock
 */
create function pubsub.list_health()
returns table (
    name text, subject_kind text, subject text, value float8, unit text, meaning text,
    warning text
)
language sql stable parallel restricted
set lock_timeout = '1s'
set enable_seqscan = off
set enable_bitmapscan = off
as $$
    select h.name, h.subject_kind, h.subject, h.value, h.unit, h.meaning, h.warning
    from pubsub.health h
    order by h.name, h.subject
$$;

comment on function pubsub.list_health is
    'The facts of pubsub.health, for gauges and the log.';
