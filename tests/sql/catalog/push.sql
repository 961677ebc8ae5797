/* Push: setting it, secrets that take turns, what senders read, and pauses that all of them share. */

/* pausing — failures, and for how many seconds the endpoint is paused from now on. */
create function pg_temp.pausing(p_subscription text)
returns text
language sql volatile
as $$
    select l.failures || ' ' || case
        when l.paused_until is null then 'open'
        when l.paused_until = 'infinity' then 'stopped'
        else ceil(extract(epoch from l.paused_until - clock_timestamp()))::text
    end
    from pubsub.list_push_endpoints(p_subscription) l
$$;

/* time_is_up — its pause is over. */
create function pg_temp.time_is_up(p_subscription text)
returns void
language sql volatile
as $$
    update pubsub_data.push_endpoints e set paused_until = clock_timestamp()
    from pubsub_data.subscriptions s
    where s.subscription_id = p_subscription
        and s.topic_key = e.topic_key and s.subscription_key = e.subscription_key
$$;

do $$
declare
    c_proves constant text := 'push is set, changed and unset, and a secret is returned when one is made';
    v_secret text;
begin
    assert not exists (select from pubsub.list_push_endpoints()), c_proves;
    perform pg_temp.stock('set');
    v_secret := pubsub.set_push('set', 'http://a', 5, '{"x-a": "1"}');
    assert v_secret like 'whsec_%', c_proves;
    assert (
        select l.subscription_id = 'set' and l.endpoint = 'http://a' and l.headers = '{"x-a": "1"}'
            and l.timeout_seconds = 5 and l.secrets = array[v_secret] and l.paused_until is null
            and l.failures = 0 and not l.is_ordered and l.max_in_flight = 10
        from pubsub.list_push_endpoints() l
    ), c_proves;

    assert pubsub.set_push('set', 'http://b') is null, c_proves;
    assert (
        select l.endpoint = 'http://b' and l.headers = '{}' and l.timeout_seconds = 15
            and l.secrets = array[v_secret]
        from pubsub.list_push_endpoints() l
    ), c_proves || ': as a whole, but for the secret';

    perform pubsub.unset_push('set');
    perform pubsub.unset_push('set');
    assert not exists (select from pubsub.list_push_endpoints()), c_proves;
    assert (select g.max_in_flight from pubsub.get_subscription('set') g) = 10, c_proves;

    assert pg_temp.refusal($q$select pubsub.set_push('set', null)$q$) like 'PS422(push) endpoint must be%', c_proves;
    assert pg_temp.refusal($q$select pubsub.set_push('set', 'http://a', 61)$q$)
        = 'PS422(push) timeout_seconds must be 1 to 60', c_proves;
    assert pg_temp.refusal($q$select pubsub.set_push('none', 'http://a')$q$)
        = 'PS404 Subscription not found', c_proves;
    assert pg_temp.refusal($q$select pubsub.unset_push('none')$q$) = 'PS404 Subscription not found', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the version is another one when something changes that senders need, and no other time';
    v_versions bigint[];
    v_change text;
begin
    perform pubsub.set_push('set', 'http://a');
    foreach v_change in array array[
        $q$pubsub.set_push('set', 'http://a', 16)$q$,
        $q$pubsub.set_push('set', 'http://a', 16, '{"a": "b"}')$q$,
        $q$pubsub.set_push('set', 'http://b', 16, '{"a": "b"}')$q$,
        $q$pubsub.rotate_push_secret('set')$q$,
        $q$pubsub.rotate_push_secret('set', 0)$q$,
        $q$pubsub.update_subscription('set', '{"enable_ordering": true}')$q$,
        $q$pubsub.update_subscription('set', '{"max_in_flight": 11}')$q$,
        $q$pubsub.update_subscription('set', '{"max_in_flight": null}')$q$
    ] loop
        v_versions := v_versions || (select l.version from pubsub.list_push_endpoints() l);
        execute 'select ' || v_change;
        assert (select l.version <> all(v_versions) from pubsub.list_push_endpoints() l),
            c_proves || ': ' || v_change;
    end loop;
    v_versions := array(select l.version from pubsub.list_push_endpoints() l);
    perform pubsub.note_push_result('set', false, 'no', true);
    perform pubsub.update_subscription('set', '{"max_rate": 5}');
    perform pubsub.purge_subscription('set');
    assert (select l.version = v_versions[1] and l.is_ordered and l.max_in_flight is null
        from pubsub.list_push_endpoints() l), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'endpoints of paused subscriptions are not listed, unless they are asked for';
begin
    perform pg_temp.stock('also');
    perform pubsub.set_push('also', 'http://a');
    assert array(select l.subscription_id from pubsub.list_push_endpoints() l) = array['also', 'set'], c_proves;
    perform pubsub.update_subscription('also', '{"paused": true}');
    assert array(select l.subscription_id from pubsub.list_push_endpoints() l) = array['set'], c_proves;
    assert array(select l.subscription_id from pubsub.list_push_endpoints('also') l) = array['also'], c_proves;
    assert not exists (select from pubsub.list_push_endpoints('none')), c_proves;
    perform pubsub.delete_subscription('also');
    assert not exists (select from pubsub.list_push_endpoints('also')), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'two secrets sign until the overlap ends, and never three';
    v_first text;
    v_second record;
    v_third record;
begin
    perform pg_temp.stock('turns');
    v_first := pubsub.set_push('turns', 'http://a');
    v_second := pubsub.rotate_push_secret('turns');
    assert v_second.previous_valid_until = now() + interval '1 day', c_proves;
    assert (select l.secrets from pubsub.list_push_endpoints('turns') l) = array[v_second.secret, v_first], c_proves;
    assert (select g.push ->> 'previous_secret_until' from pubsub.get_subscription('turns') g)::timestamptz
        = v_second.previous_valid_until, c_proves;

    v_third := pubsub.rotate_push_secret('turns', 604800);
    assert (select l.secrets from pubsub.list_push_endpoints('turns') l)
        = array[v_third.secret, v_second.secret], c_proves;
    perform pubsub.set_push('turns', 'http://b');
    assert (select l.secrets from pubsub.list_push_endpoints('turns') l)
        = array[v_third.secret, v_second.secret], c_proves || ': another endpoint has them, too';
    update pubsub_data.push_endpoints e set previous_secret_until = now() where e.previous_secret = v_second.secret;
    assert (select l.secrets from pubsub.list_push_endpoints('turns') l) = array[v_third.secret], c_proves;
    assert (select g.push ->> 'previous_secret_until' from pubsub.get_subscription('turns') g) is null, c_proves;

    v_second := pubsub.rotate_push_secret('turns', 0);
    assert v_second.previous_valid_until is null, c_proves;
    assert (select l.secrets from pubsub.list_push_endpoints('turns') l) = array[v_second.secret], c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a rotation that is refused changes nothing';
    v_secrets text[] := (select l.secrets from pubsub.list_push_endpoints('turns') l);
    v_overlap text;
begin
    foreach v_overlap in array array['-1', '604801', 'null'] loop
        assert pg_temp.refusal(format($q$select pubsub.rotate_push_secret('turns', %s)$q$, v_overlap))
            = 'PS422(overlap_seconds) overlap_seconds must be 0 to 604800', c_proves || ': ' || v_overlap;
    end loop;
    assert (select l.secrets from pubsub.list_push_endpoints('turns') l) = v_secrets, c_proves;
    assert pg_temp.refusal($q$select pubsub.rotate_push_secret('none')$q$) = 'PS404 Subscription not found', c_proves;
    perform pg_temp.stock('pulled');
    assert pg_temp.refusal($q$select pubsub.rotate_push_secret('pulled')$q$)
        = 'PS404 The subscription has no push endpoint', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'five failures in a row pause, each failed probe doubles that up to five minutes';
    v_seconds int;
    v_pauses text := '';
begin
    perform pg_temp.stock('breaks');
    perform pubsub.set_push('breaks', 'http://a', 7);
    for n in 1..4 loop
        assert pubsub.note_push_result('breaks', false, 'HTTP 500') is null, c_proves;
    end loop;
    assert pg_temp.pausing('breaks') = '4 open', c_proves || ': ' || pg_temp.pausing('breaks');
    assert not pubsub.try_push_probe('breaks'), c_proves || ': nobody need ask';
    assert pubsub.note_push_result('breaks', true) is null, c_proves;
    assert pg_temp.pausing('breaks') = '0 open', c_proves || ': a success ends the row';

    for n in 1..5 loop
        perform pubsub.note_push_result('breaks', false, repeat('x', 2000));
    end loop;
    assert pg_temp.pausing('breaks') = '5 5', c_proves || ': ' || pg_temp.pausing('breaks');
    assert (
        select char_length(g.push ->> 'last_error') = 1024 and (g.push ->> 'failures')::int = 5
            and (g.push ->> 'last_failed_at')::timestamptz between now() and clock_timestamp()
            and (g.push ->> 'paused_until')::timestamptz > clock_timestamp()
        from pubsub.get_subscription('breaks') g
    ), c_proves;
    assert not pubsub.try_push_probe('breaks'), c_proves || ': not before it is over';
    assert pubsub.note_push_result('breaks', false, 'late') > now() and pg_temp.pausing('breaks') = '5 5',
        c_proves || ': pushes from before the pause count no more';

    for n in 1..8 loop
        perform pg_temp.time_is_up('breaks');
        assert pubsub.note_push_result('breaks', false, 'late') <= clock_timestamp(), c_proves || ': nor after it';
        assert pubsub.try_push_probe('breaks') and not pubsub.try_push_probe('breaks'), c_proves || ': one probes';
        assert pg_temp.pausing('breaks') = 4 + n || ' 12', c_proves || ': ' || pg_temp.pausing('breaks');
        perform pubsub.note_push_result('breaks', false, 'HTTP 500');
        v_pauses := v_pauses || pg_temp.pausing('breaks') || ', ';
    end loop;
    assert v_pauses = '6 10, 7 20, 8 40, 9 80, 10 160, 11 300, 12 300, 13 300, ', c_proves || ': ' || v_pauses;

    perform pg_temp.time_is_up('breaks');
    assert pubsub.try_push_probe('breaks'), c_proves;
    perform pg_temp.time_is_up('breaks');
    assert pubsub.try_push_probe('breaks'), c_proves || ': one that is never heard of again does not stay the one';
    assert pubsub.note_push_result('breaks', true) is null and pg_temp.pausing('breaks') = '0 open', c_proves;
    assert (select g.push ->> 'last_error' from pubsub.get_subscription('breaks') g) = 'HTTP 500',
        c_proves || ': people see what it was';
end
$$;

do $$
declare
    c_proves constant text := 'a success after a success writes nothing';
    v_before text;
begin
    select e.ctid::text || e.xmin into v_before
    from pubsub_data.push_endpoints e join pubsub_data.subscriptions s using (topic_key, subscription_key)
    where s.subscription_id = 'breaks';
    assert pubsub.note_push_result('breaks', true, 'ignored') is null, c_proves;
    assert (
        select e.ctid::text || e.xmin = v_before
        from pubsub_data.push_endpoints e join pubsub_data.subscriptions s using (topic_key, subscription_key)
        where s.subscription_id = 'breaks'
    ), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'an endpoint that is gone is stopped until push is set again';
begin
    assert pubsub.note_push_result('breaks', false, 'HTTP 410', true) = 'infinity', c_proves;
    assert pg_temp.pausing('breaks') = '1 stopped', c_proves;
    assert not pubsub.try_push_probe('breaks'), c_proves;
    assert pubsub.note_push_result('breaks', true) = 'infinity', c_proves || ': whatever else comes';
    assert pubsub.note_push_result('breaks', false) = 'infinity', c_proves;
    assert (select g.push ->> 'stopped' = 'true' and g.push ->> 'paused_until' is null
        and g.push ->> 'last_error' = 'HTTP 410' from pubsub.get_subscription('breaks') g), c_proves;

    perform pubsub.update_subscription('breaks', '{"max_rate": 5}');
    assert pg_temp.pausing('breaks') = '1 stopped', c_proves;
    perform pubsub.update_subscription('breaks', '{"push": {}}');
    assert pg_temp.pausing('breaks') = '0 open', c_proves || ': also to the same';
end
$$;

do $$
declare
    c_proves constant text := 'a result that cannot be is refused, and one of an endpoint that is gone is nothing';
begin
    assert pg_temp.refusal($q$select pubsub.note_push_result('breaks', null)$q$)
        = 'PS422(is_success) is_success must be true or false', c_proves;
    assert pg_temp.refusal($q$select pubsub.note_push_result('breaks', true, null, true)$q$)
        = 'PS422(is_gone) is_gone must be false, or true of a failure', c_proves;
    assert pubsub.note_push_result('pulled', false) is null and pubsub.note_push_result('none', false) is null,
        c_proves;
    assert not pubsub.try_push_probe('none') and not pubsub.try_push_probe('pulled'), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a result of an endpoint that was changed since says nothing of the one of now';
    v_version bigint;
begin
    perform pg_temp.stock('other');
    perform pubsub.set_push('other', 'http://a');
    select l.version into v_version from pubsub.list_push_endpoints('other') l;
    assert pubsub.note_push_result('other', false, 'no', false, v_version) is null, c_proves;
    assert pg_temp.pausing('other') = '1 open', c_proves || ': of the same it does';

    perform pubsub.set_push('other', 'http://b');
    assert pubsub.note_push_result('other', false, 'HTTP 410', true, v_version) is null, c_proves;
    for n in 1..6 loop
        assert pubsub.note_push_result('other', false, 'no', false, v_version) is null, c_proves;
    end loop;
    assert pg_temp.pausing('other') = '0 open', c_proves || ': ' || pg_temp.pausing('other');

    perform pubsub.note_push_result('other', false, 'HTTP 410', true);
    assert pubsub.note_push_result('other', true, null, false, v_version) = 'infinity', c_proves;
    assert pg_temp.pausing('other') = '1 stopped', c_proves;
    assert pubsub.note_push_result('none', false, 'no', true, v_version) is null, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a pause is as long as the endpoint wants to be left alone, at most an hour';
    v_wait text;
begin
    perform pg_temp.stock('waits');
    perform pubsub.set_push('waits', 'http://a');
    for n in 1..4 loop
        assert pubsub.note_push_result('waits', false, 'no', p_wait_seconds => 3600) is null, c_proves;
    end loop;
    perform pubsub.note_push_result('waits', false, 'no', p_wait_seconds => 60);
    assert pg_temp.pausing('waits') = '5 60', c_proves || ': ' || pg_temp.pausing('waits');

    perform pg_temp.time_is_up('waits');
    assert pubsub.try_push_probe('waits'), c_proves;
    perform pubsub.note_push_result('waits', false, 'no', p_wait_seconds => 3);
    assert pg_temp.pausing('waits') = '6 10', c_proves || ': never shorter: ' || pg_temp.pausing('waits');

    foreach v_wait in array array['-1', '3600.5', '''NaN''', '''infinity'''] loop
        assert pg_temp.refusal(format(
            $q$select pubsub.note_push_result('waits', false, p_wait_seconds => %s)$q$, v_wait))
            = 'PS422(wait_seconds) wait_seconds must be 0 to 3600', c_proves || ': ' || v_wait;
    end loop;
end
$$;
