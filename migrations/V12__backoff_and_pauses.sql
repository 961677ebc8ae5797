/*
 * How waits before retries grow, fractions of a second in them, and subscriptions that are paused. The previous
 * binary keeps working: the columns that it knows stay as they are, as do those of the functions that return
 * subscriptions. No row is rewritten.
 */

alter table pubsub_data.subscriptions
    -- where backoff_min_seconds and backoff_max_seconds, which are whole numbers, had to be rounded up
    add column exact_backoff_min_seconds double precision,
    add column exact_backoff_max_seconds double precision,
    add constraint subscriptions_exact_backoff_valid check (
        exact_backoff_min_seconds >= 0.001 and exact_backoff_max_seconds >= 0.001
        and ceil(exact_backoff_min_seconds) = backoff_min_seconds
        and ceil(exact_backoff_max_seconds) = backoff_max_seconds),
    -- how the wait grows from retry to retry
    add column backoff_strategy text not null default 'exponential',
    add constraint subscriptions_backoff_strategy_valid
        check (backoff_strategy in ('fixed', 'linear', 'exponential')),
    -- nothing is handed out
    add column paused boolean not null default false;
