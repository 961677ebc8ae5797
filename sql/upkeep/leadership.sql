/*
 * try_lead — become or stay the one holder of a job for p_seconds.
 *
 * Out      whether p_holder holds it now
 * Effects  a lease row, so it survives poolers and ends by itself when the holder dies. One that ends
 *          later than a lease taken now was taken before the clock was set back, and holds no more
 */
create function pubsub.try_lead(p_job text, p_holder text, p_seconds int)
returns boolean
language sql volatile
as $$
    with led as (
        insert into pubsub_data.leaders as l (job, holder, held_until)
        values (p_job, p_holder, clock_timestamp() + make_interval(secs => p_seconds))
        on conflict (job) do update
        set holder = excluded.holder, held_until = excluded.held_until
        where l.holder = excluded.holder
            or l.held_until <= clock_timestamp()
            or l.held_until > clock_timestamp() + make_interval(secs => p_seconds)
        returning 1
    )
    select exists (select from led)
$$;

comment on function pubsub.try_lead is
    'Become or stay the one holder of a job for some seconds; false when another holds it.';
