/* What a message may be, and how a refusal names the field and the place. */

/* fault — how a message is refused: "field path text"; null when it is not. */
create function pg_temp.fault(p_arguments text, p_payload text default '{}')
returns text
language plpgsql
as $$
declare
    v_column text;
    v_message text;
    v_path text;
begin
    -- the third of three, the others being plain
    execute format(
        'select pubsub.publish_messages(''limits'', array[''{}'', ''{}'', %L]::jsonb[]%s)',
        p_payload, p_arguments);
    return null;
exception when sqlstate 'PS422' then
    get stacked diagnostics v_column = column_name, v_message = message_text,
        v_path = pg_exception_detail;
    return v_column || ' ' || v_path || ' ' || v_message;
end
$$;

do $$
declare
    c_proves constant text := 'priority is 0 to 9';
begin
    perform pubsub.create_topic('limits');

    assert pg_temp.fault(', p_priorities => array[0, 9, 10]::smallint[]')
        = 'priority [2] priority must be 0 to 9', c_proves;
    assert pg_temp.fault(', p_priorities => array[0, 9, -1]::smallint[]')
        = 'priority [2] priority must be 0 to 9', c_proves;
    assert pg_temp.fault(', p_priorities => array[0, 9, null]::smallint[]') is null, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an ordering key has 1 to 1024 characters';
begin
    assert pg_temp.fault($q$, p_ordering_keys => array['k', repeat('é', 1024), '']$q$)
        = 'ordering_key [2] ordering_key must be 1 to 1024 characters', c_proves;
    assert pg_temp.fault($q$, p_ordering_keys => array['k', null, repeat('k', 1025)]$q$)
        = 'ordering_key [2] ordering_key must be 1 to 1024 characters', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an idempotency key has 1 to 256 characters';
begin
    assert pg_temp.fault($q$, p_idempotency_keys => array['k', repeat('é', 256), '']$q$)
        = 'idempotency_key [2] idempotency_key must be 1 to 256 characters', c_proves;
    assert pg_temp.fault($q$, p_idempotency_keys => array['k', null, repeat('k', 257)]$q$)
        = 'idempotency_key [2] idempotency_key must be 1 to 256 characters', c_proves;
    assert pg_temp.fault($q$, p_idempotency_keys => array['k', null, repeat('é', 256)]$q$)
        is null, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a delay is at most 365 days';
begin
    assert pg_temp.fault(
        $q$, p_deliver_at => array[null, clock_timestamp() + interval '364 days 23 hours',
            clock_timestamp() + interval '365 days 1 minute']$q$
    ) = 'deliver_at [2] deliver_at must be at most 365 days ahead', c_proves;
    assert pg_temp.fault($q$, p_deliver_at => array[null, null, 'infinity'::timestamptz]$q$)
        = 'deliver_at [2] deliver_at must be at most 365 days ahead', c_proves;
    assert pg_temp.fault($q$, p_deliver_at => array[null, null, '-infinity'::timestamptz]$q$)
        = 'deliver_at [2] deliver_at must be a time', c_proves;
    assert pg_temp.fault($q$, p_deliver_at => array[null, null, '2001-01-01'::timestamptz]$q$)
        is null, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a message expires after now and after its deliver_at';
begin
    assert pg_temp.fault($q$, p_expires_at => array[null, null, clock_timestamp()]$q$)
        = 'expires_at [2] expires_at must lie ahead', c_proves;
    assert pg_temp.fault(
        $q$, p_deliver_at => array_fill(now() + interval '2 hours', array[3]),
            p_expires_at => array[null, now() + interval '3 hours', now() + interval '2 hours']$q$
    ) = 'expires_at [2] expires_at must be after deliver_at', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'attributes are at most 100 strings with short keys';
    v_fault record;
begin
    for v_fault in
        select * from (
            values
                ('[]'::jsonb, '[2] attributes must be an object of strings'),
                ('"a"', '[2] attributes must be an object of strings'),
                ('null', '[2] attributes must be an object of strings'),
                ('{"a": 1}', '[2, "a"] the value of an attribute must be a string'),
                ('{"a": null}', '[2, "a"] the value of an attribute must be a string'),
                ('{"b": "x", "a\"b": {}}', '[2, "a\"b"] the value of an attribute must be a string'),
                ('{"": "x"}', '[2, ""] the key of an attribute must be 1 to 256 characters'),
                (jsonb_build_object(repeat('k', 257), 'x'),
                    format('[2, "%s"] the key of an attribute must be 1 to 256 characters',
                        repeat('k', 257))),
                (jsonb_build_object('a', repeat('é', 1025)),
                    '[2, "a"] the value of an attribute must be at most 1024 characters'),
                ((select jsonb_object_agg(n, 'x') from generate_series(1, 101) n),
                    '[2] attributes must be at most 100'),
                ('{}', null),
                (jsonb_build_object(repeat('k', 256), repeat('é', 1024)), null),
                ((select jsonb_object_agg(n, 'x') from generate_series(1, 100) n), null)
        ) as v (attributes, fault)
    loop
        assert pg_temp.fault(format(
            ', array[null, ''{"a": "b"}'', %L]::jsonb[]', v_fault.attributes
        )) is not distinct from 'attributes ' || v_fault.fault,
            format('%s: %s', c_proves, v_fault.fault);
    end loop;
end
$$;

do $$
declare
    c_proves constant text := 'a payload is there, whether or not the message has more';
begin
    assert pg_temp.fault('', null) = 'messages [2] every message must be a JSON value', c_proves;
    assert pg_temp.fault(', p_priorities => array[1, 1, 1]::smallint[]', null)
        = 'messages [2] every message must be a JSON value', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the first message that is wrong is named, and nothing is stored';
begin
    assert pg_temp.fault($q$, p_ordering_keys => array['k', '', 'k'],
        p_priorities => array[1, 10, 10]::smallint[]$q$)
        = 'ordering_key [1] ordering_key must be 1 to 1024 characters', c_proves;
    assert (
        select count(*) = 0 from pubsub_data.messages m
        join pubsub_data.topics t on t.topic_key = m.topic_key
        where t.topic_id = 'limits' and m.ordering_key = 'k'
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a message that is skipped may be anything';
begin
    perform pubsub.check_messages(now(), array['{}', null]::jsonb[], array[null, '1']::jsonb[],
        array[null, 'infinity']::timestamptz[], array[null, '-infinity']::timestamptz[],
        array[null, ''], array[null, 10]::smallint[], array[false, true]);
    perform pubsub.check_payloads(array['{}', null]::jsonb[], array[null, true]);
    perform pubsub.check_attributes(array['{}', '1']::jsonb[], array[null, true]);
    assert pg_temp.refusal(
        $q$select pubsub.check_messages(now(), array[null]::jsonb[], null, null, null, null, null)$q$
    ) like 'PS422(messages) %', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'times are given as such, or in seconds from now or from another time';
    c_at constant timestamptz := '2901-01-01';
    v_from constant timestamptz := clock_timestamp();
    v_times timestamptz[];
begin
    assert pubsub.message_times(null, null, array[c_at]) is null, c_proves;
    v_times := pubsub.message_times(array[c_at, null, null, null], array[null, 60, null, 60],
        array[null, null, null, c_at]);

    assert v_times[1] = c_at and v_times[3] is null, c_proves;
    assert v_times[2] - interval '60 s' between v_from and clock_timestamp(), c_proves;
    assert v_times[4] = c_at + interval '60 s', c_proves;
    -- to the millisecond, as a number of any kind, and beyond what an interval can hold
    v_times := pubsub.message_times(null, array[0.001, 1.5, 1e300, 'NaN'], array[c_at, c_at, c_at, c_at]);
    assert v_times[1] = c_at + interval '1 ms' and v_times[2] = c_at + interval '1500 ms'
        and v_times[3] > c_at + interval '300 years' and v_times[4] = v_times[3], c_proves;
    assert pubsub.message_times(null, '{60}'::int[], array[c_at]) = array[c_at + interval '60 s'], c_proves;
    v_times := pubsub.message_times(null, '{60}', array['2001-01-01'::timestamptz]);
    assert v_times[1] - interval '60 s' between v_from and clock_timestamp(), c_proves;
end
$$;
