/*
 * How waits before retries grow, fractions of a second in them, and subscriptions that are paused. The previous
 * binary keeps working: it reads subscriptions through functions only, and those go on returning backoffs as
 * whole numbers where it looks for them.
 *
 * Another type rewrites the table, which has a row per subscription, under a lock that a migration holds anyway.
 */

alter table pubsub_data.subscriptions
    drop constraint subscriptions_backoff_valid,
    alter column backoff_min_seconds type double precision,
    alter column backoff_max_seconds type double precision,
    add constraint subscriptions_backoff_valid check (
        backoff_min_seconds >= 0.001 and backoff_max_seconds >= backoff_min_seconds
        and backoff_max_seconds <= 2147483647),
    -- how the wait grows from retry to retry
    add column backoff_strategy text not null default 'exponential',
    add constraint subscriptions_backoff_strategy_valid
        check (backoff_strategy in ('fixed', 'linear', 'exponential')),
    -- nothing is handed out
    add column paused boolean not null default false;
