/*
 * What time it was when maintenance last looked, so that it notices when the clock is set back; and which
 * deliveries may be of large messages, so that answers can be bounded in bytes without looking at the
 * messages. A server of before keeps working: it neither reads nor writes these.
 */
create table pubsub_data.clock (
    -- one row
    is_only boolean primary key default true,
    seen_at timestamptz not null,
    constraint clock_is_only check (is_only)
);

-- null: small, which publishing tells; by default it is not known
alter table pubsub_data.deliveries add column is_large boolean default true;
