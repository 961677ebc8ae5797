/*
 * Hints: what claims of a session note for the next ones, in settings of the session, one for each
 * subscription and kind. They follow a rollback, and poolers hand them to other clients. So a hint may
 * be lost or wrong: that costs a scan or a moment, never a message, and what cannot be read, such as
 * one that another version wrote, is forgotten.
 *
 * Times are microseconds since 1970: as text they depend on no setting of the session. A hint that was
 * noted in the future was noted before the clock was set back, and is forgotten, too: messages published
 * since then have lower ids than those that it says were read.
 */

/* claim — of any claim. No field is ever null. */
create type pubsub.claim_hint as (
    noted_at bigint,
    rewinds int,
    -- messages were read up to here
    head uuid,
    -- the latest due time of the wake-ups that were processed, and when to look for what was committed
    -- late: a little below it, and everywhere
    due_from bigint,
    due_recent_at bigint,
    due_all_at bigint,
    -- when to look for stragglers: of the last second, and of earlier times, from far_upto down
    near_at bigint,
    far_at bigint,
    far_upto uuid,
    far_millis int,
    -- of priorities: deliveries since the oldest had its turn
    since_aged int
);

comment on type pubsub.claim_hint is 'What any claim notes for the next one of its session.';

/* urgent — how far the lanes of priorities were read: 9 first. No field is ever null. */
create type pubsub.urgent_hint as (
    noted_at bigint, rewinds int, look_back_at bigint, heads uuid[]
);

comment on type pubsub.urgent_hint is 'How far a session has read the lanes of priorities.';

/* ordered — of claims of an ordered subscription: see choose_ordered. */
create type pubsub.ordered_hint as (
    noted_at bigint, rewinds int, tail uuid, mark uuid, mark_xid xid8, mark_at bigint,
    near_at bigint, sweep_at bigint, sweep uuid, sweep_millis int
);

comment on type pubsub.ordered_hint is 'What claims of an ordered subscription note as well.';

/* fair — of claims of a subscription with a fairness key: see choose_fair. */
create type pubsub.fair_hint as (
    noted_at bigint, rewinds int, last text, heads jsonb, turn int
);

comment on type pubsub.fair_hint is 'What claims of a fair subscription note as well.';

/*
 * hint_name — the setting that holds a hint. Whoever changes what a hint means raises the number in it.
 */
create function pubsub.hint_name(p_kind text, p_subscription_key bigint)
returns text
language sql immutable parallel safe
begin atomic
    select 'pubsub.' || p_kind || '_v3_' || p_subscription_key::text;
end;

comment on function pubsub.hint_name is
    'The setting of the session in which claims note a hint of a kind.';

/*
 * micros — a time in microseconds since 1970.
 */
create function pubsub.micros(p_at timestamptz)
returns bigint
-- stable, as date_part is: Postgres would not inline it otherwise
language sql stable parallel safe
begin atomic
    select (date_part('epoch', p_at) * 1000000)::bigint;
end;

comment on function pubsub.micros is 'A finite time in microseconds since 1970.';

/*
 * is_credible — whether what a hint says of times can be true now.
 *
 * In       p_past: what lay in the past when it was noted; p_future: when to look again, no more than a
 *          minute ahead
 */
create function pubsub.is_credible(p_now bigint, p_past bigint, p_future bigint)
returns boolean
language sql immutable parallel safe
begin atomic
    select coalesce(p_past between 0 and p_now and p_future <= p_now + 60000000, false);
end;

comment on function pubsub.is_credible is
    'Whether what a hint says of times can be true now: not after the clock was set back.';

/*
 * lane_mark — a short name for a lane, however long its value is.
 */
create function pubsub.lane_mark(p_lane text)
returns text
language sql immutable parallel safe
begin atomic
    select substr(md5(p_lane), 1, 16);
end;

comment on function pubsub.lane_mark is
    'A short name of a lane, under which a session notes how far it was read.';
