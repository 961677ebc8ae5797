/*
 * What a message may be. The refusal of one names the field, and the message by its position.
 */

/*
 * check_messages — refuse what cannot be published.
 *
 * In       the arrays of publish_messages; p_skipped: by position, whether not to look at it
 * Errors   PS422 (messages, attributes, deliver_at, expires_at, ordering_key, priority) with the
 *          position, and the key of an attribute, as path
 */
create function pubsub.check_messages(
    p_now timestamptz,
    p_payloads jsonb[],
    p_attributes jsonb[],
    p_deliver_at timestamptz[],
    p_expires_at timestamptz[],
    p_ordering_keys text[],
    p_priorities smallint[],
    p_skipped boolean[] default null
)
returns void
language plpgsql immutable parallel safe
as $$
declare
    v_fault record;
begin
    perform pubsub.check_payloads(p_payloads, p_skipped);
    if p_attributes is not null then
        perform pubsub.check_attributes(p_attributes, p_skipped);
    end if;
    if p_deliver_at is null and p_expires_at is null and p_ordering_keys is null
        and p_priorities is null
    then
        return;
    end if;

    select f.field, f.message, m.position - 1 as position
    into v_fault
    from unnest(p_deliver_at, p_expires_at, p_ordering_keys, p_priorities, p_skipped)
        with ordinality
        as m (deliver_at, expires_at, ordering_key, priority, skipped, position)
    cross join lateral (
        values
            (1, 'ordering_key', char_length(m.ordering_key) not between 1 and 1024,
                'ordering_key must be 1 to 1024 characters'),
            (2, 'priority', m.priority not between 0 and 9, 'priority must be 0 to 9'),
            -- 365 days, not a year, whose length changes
            (3, 'deliver_at', m.deliver_at > p_now + interval '8760 hours',
                'deliver_at must be at most 365 days ahead'),
            (4, 'deliver_at', m.deliver_at = '-infinity', 'deliver_at must be a time'),
            (5, 'expires_at', m.expires_at <= p_now, 'expires_at must lie ahead'),
            (6, 'expires_at', m.expires_at <= m.deliver_at, 'expires_at must be after deliver_at')
    ) as f (rank, field, is_wrong, message)
    where f.is_wrong and m.skipped is not true
    order by m.position, f.rank
    limit 1;
    if found then
        perform pubsub.fail_validation(
            v_fault.field, v_fault.message, jsonb_build_array(v_fault.position));
    end if;
end
$$;

comment on function pubsub.check_messages is
    'Refuse what cannot be published: PS422 with the field and the position.';

/*
 * check_payloads — refuse payloads that are not there. Any JSON value is one, null included.
 *
 * Errors   PS422 (messages) with the position as path
 */
create function pubsub.check_payloads(p_payloads jsonb[], p_skipped boolean[] default null)
returns void
language plpgsql immutable parallel safe
as $$
declare
    v_missing bigint;
begin
    select min(m.position) - 1 into v_missing
    from unnest(p_payloads, p_skipped) with ordinality as m (payload, skipped, position)
    where m.payload is null and m.skipped is not true;
    if v_missing is not null then
        perform pubsub.fail_validation('messages', 'every message must be a JSON value',
            jsonb_build_array(v_missing));
    end if;
end
$$;

comment on function pubsub.check_payloads is
    'Refuse payloads that are not there: PS422 with the position.';

/*
 * check_attributes — refuse attributes that are not a small map of strings.
 *
 * Errors   PS422 (attributes) with the position, and the key, as path
 */
create function pubsub.check_attributes(p_attributes jsonb[], p_skipped boolean[])
returns void
language plpgsql immutable parallel safe
as $$
declare
    v_fault record;
begin
    select m.position - 1 as position, f.message, f.key
    into v_fault
    from unnest(p_attributes, p_skipped) with ordinality as m (attributes, skipped, position)
    cross join lateral (
        select case jsonb_typeof(m.attributes) when 'object' then m.attributes else '{}' end
    ) as o (attributes)
    cross join lateral (
        select 1 as rank, 'attributes must be an object of strings' as message, null as key
        where jsonb_typeof(m.attributes) <> 'object'
        union all
        select 2, 'attributes must be at most 100', null
        where (select count(*) from jsonb_object_keys(o.attributes)) > 100
        union all
        (
            select 3,
                case
                    when char_length(a.key) not between 1 and 256
                        then 'the key of an attribute must be 1 to 256 characters'
                    when jsonb_typeof(a.value) <> 'string'
                        then 'the value of an attribute must be a string'
                    else 'the value of an attribute must be at most 1024 characters'
                end,
                a.key
            from jsonb_each(o.attributes) a
            where char_length(a.key) not between 1 and 256
                or jsonb_typeof(a.value) <> 'string'
                or char_length(a.value #>> '{}') > 1024
            limit 1
        )
    ) f
    where m.skipped is not true
    order by m.position, f.rank
    limit 1;
    if found then
        perform pubsub.fail_validation('attributes', v_fault.message,
            case when v_fault.key is null then jsonb_build_array(v_fault.position)
                else jsonb_build_array(v_fault.position, v_fault.key) end);
    end if;
end
$$;

comment on function pubsub.check_attributes is
    'Refuse attributes that are not a small map of strings: PS422 with the position and the key.';

/*
 * check_cardinality — one element per message, or none at all.
 *
 * Errors   PS422 (p_field)
 */
create function pubsub.check_cardinality(p_field text, p_elements int, p_messages int)
returns void
language plpgsql immutable parallel safe
as $$
begin
    if p_elements <> p_messages then
        perform pubsub.fail_validation(p_field, format(
            '%s must be null or have one element per message: %s for %s messages',
            p_field, p_elements, p_messages));
    end if;
end
$$;

comment on function pubsub.check_cardinality is
    'Refuse an array of another length than the messages: PS422 with the field.';

/*
 * message_times — times that were given as such, or in seconds from now or from other times.
 *
 * In       p_at, p_seconds: null, or by position one of them; p_after: the seconds count from there
 *          where it lies ahead. More seconds than three centuries have are taken for these
 * Out      null when both are
 */
create function pubsub.message_times(
    p_at timestamptz[], p_seconds double precision[], p_after timestamptz[] default null
)
returns timestamptz[]
language sql stable parallel safe
begin atomic
    select case when num_nonnulls(p_at, p_seconds) > 0 then array(
        select coalesce(m.at,
            greatest(clock_timestamp(), m.after)
                + make_interval(secs => case when m.seconds is not null
                    then greatest(-1e10, least(1e10, m.seconds)) end))
        from unnest(p_at, p_seconds, p_after) with ordinality as m (at, seconds, after, position)
        order by m.position
    ) end;
end;

comment on function pubsub.message_times is
    'Times given as such or in seconds, as publish_messages takes them.';
