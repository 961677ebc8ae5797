/*
 * Where the messages of a subscription are sent to: one setting of it, push, an object with settings of its own.
 * push.sql says how it is used.
 *
 * Two things in it are secret: what signs the pushes, and the values of the headers that go with them. The first
 * is shown by whoever makes it, once, the second never; those who send read both.
 */

/*
 * push_header_fault — what is wrong with a header that is to go with every push; null: nothing.
 */
create function pubsub.push_header_fault(p_name text, p_value jsonb)
returns text
language sql immutable parallel safe
begin atomic
    select case
        when p_name collate "C" !~ '^[!#$%&''*+.^_`|~0-9a-zA-Z-]{1,128}$'
            then 'the name of a header must be 1 to 128 letters, digits and characters of !#$%&''*+.^_`|~-'
        -- what signs, describes and frames a push is its sender's
        when lower(p_name) ~ '^(webhook|content|proxy)-' or lower(p_name) = any(array[
            'host', 'connection', 'keep-alive', 'transfer-encoding', 'te', 'trailer', 'upgrade', 'expect'])
            then 'this header is the sender''s own'
        when jsonb_typeof(p_value) <> 'string'
            then 'the value of a header must be a string'
        when char_length(p_value #>> '{}') > 1024 or (p_value #>> '{}') collate "C" !~ '^[ -~]*$'
            then 'the value of a header must be at most 1024 printable ASCII characters'
    end;
end;

comment on function pubsub.push_header_fault is
    'What is wrong with a header that is to go with every push.';

/*
 * check_push — refuse what cannot be the setting push.
 *
 * In       p_push: all of it
 * Errors   PS422 (push), with the names that lead to the fault
 */
create function pubsub.check_push(p_push jsonb)
returns void
language plpgsql immutable parallel safe
as $$
declare
    -- host or address, port, path and query; nothing before the host
    c_url constant text := '^https?://([a-z0-9._-]+|[[][0-9a-f:.]+[]])(:[0-9]{1,5})?([/?][^#]*)?$';
    v_fault record;
begin
    if jsonb_typeof(p_push) <> 'object' then
        perform pubsub.fail_validation('push', 'push must be an object or null');
    end if;
    select f.path, f.message into v_fault
    from (
        select 1 as position, array[k.name] as path,
            format('"%s" is not a setting of push', k.name) as message
        from jsonb_object_keys(p_push) as k (name)
        where k.name <> all(array['endpoint', 'timeout_seconds', 'headers'])
        union all
        select 2, array['endpoint'], 'endpoint must be an http or https URL of at most 2048 ASCII characters, '
            'without user, password and fragment'
        where jsonb_typeof(p_push -> 'endpoint') is distinct from 'string'
            or char_length(p_push ->> 'endpoint') > 2048
            or (p_push ->> 'endpoint') collate "C" !~ '^[!-~]+$'
            or (p_push ->> 'endpoint') collate "C" !~* c_url
            or coalesce(substring(p_push ->> 'endpoint', '^[^:]+://[^/?]*:([0-9]+)([/?]|$)')::int, 1)
                not between 1 and 65535
        union all
        select 3, array['timeout_seconds'], 'timeout_seconds must be 1 to 60'
        where case jsonb_typeof(p_push -> 'timeout_seconds')
            when 'number' then not (p_push -> 'timeout_seconds')::numeric between 1 and 60
                or (p_push -> 'timeout_seconds')::numeric % 1 <> 0
            else true
        end
        union all
        select 4, array['headers'], 'headers must be an object of at most 20 strings'
        where case jsonb_typeof(p_push -> 'headers')
            when 'object' then (select count(*) > 20 from jsonb_object_keys(p_push -> 'headers'))
            else true
        end
        union all
        select 5, array['headers', h.name], pubsub.push_header_fault(h.name, h.value)
        from jsonb_each(case jsonb_typeof(p_push -> 'headers') when 'object' then p_push -> 'headers' end)
            as h (name, value)
        where pubsub.push_header_fault(h.name, h.value) is not null
        union all
        select 6, array['headers', max(h.name)], 'two headers have this name'
        from jsonb_object_keys(case jsonb_typeof(p_push -> 'headers') when 'object' then p_push -> 'headers' end)
            as h (name)
        group by lower(h.name)
        having count(*) > 1
    ) f
    order by f.position, f.path
    limit 1;
    if found then
        perform pubsub.fail_validation('push', v_fault.message, to_jsonb(v_fault.path));
    end if;
end
$$;

comment on function pubsub.check_push is 'Refuse what cannot be the setting push of a subscription.';

/*
 * new_push_secret — 256 bits that sign pushes, as Standard Webhooks writes them.
 */
create function pubsub.new_push_secret()
returns text
language sql volatile parallel safe
as $$
    -- each has 122 random bits
    select 'whsec_' || encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
        || uuid_send(gen_random_uuid())), 'base64')
$$;

comment on function pubsub.new_push_secret is 'A new secret that signs pushes.';

/*
 * has_push — whether the messages of a subscription are sent to an endpoint.
 */
create function pubsub.has_push(p_topic_key bigint, p_subscription_key bigint)
returns boolean
language sql stable parallel safe
begin atomic
    select exists (
        select from pubsub_data.push_endpoints e
        where e.topic_key = p_topic_key and e.subscription_key = p_subscription_key
    );
end;

comment on function pubsub.has_push is 'Whether the messages of a subscription are sent to an endpoint.';

/*
 * save_push — let a subscription have the setting push.
 *
 * In       p_push: an object of endpoint, timeout_seconds (1 to 60; 15) and headers (values by name, at most 20);
 *          what is left out stays, null takes it back. JSON null as a whole: none
 * Errors   PS422 (push), with the names that lead to the fault
 * Locks    the endpoint; the caller has locked the subscription
 * Effects  pauses end. The secret stays; there is a new one where there was none
 */
create function pubsub.save_push(p_topic_key bigint, p_subscription_key bigint, p_push jsonb)
returns void
language plpgsql volatile
as $$
declare
    v_push jsonb := '{"timeout_seconds": 15, "headers": {}}';
begin
    if p_push = 'null' then
        delete from pubsub_data.push_endpoints e
        where e.topic_key = p_topic_key and e.subscription_key = p_subscription_key;
        return;
    end if;
    if jsonb_typeof(p_push) = 'object' then
        if pubsub.has_push(p_topic_key, p_subscription_key) then
            select v_push || jsonb_strip_nulls(jsonb_build_object(
                'endpoint', case when not p_push ? 'endpoint' then e.endpoint end,
                'timeout_seconds', case when not p_push ? 'timeout_seconds' then e.timeout_seconds end,
                'headers', case when not p_push ? 'headers' then e.headers end))
            into v_push
            from pubsub_data.push_endpoints e
            where e.topic_key = p_topic_key and e.subscription_key = p_subscription_key;
        end if;
        select v_push || coalesce(jsonb_object_agg(k.name, k.value), '{}') into v_push
        from jsonb_each(p_push) as k (name, value)
        where k.value <> 'null' or k.name <> all(array['timeout_seconds', 'headers']);
    else
        v_push := p_push;
    end if;
    perform pubsub.check_push(v_push);

    insert into pubsub_data.push_endpoints as e (
        topic_key, subscription_key, endpoint, timeout_seconds, headers, header_names, secret
    )
    values (p_topic_key, p_subscription_key, v_push ->> 'endpoint', (v_push -> 'timeout_seconds')::int,
        v_push -> 'headers', array(select k.name from jsonb_object_keys(v_push -> 'headers') as k (name)
            order by k.name collate "C"), pubsub.new_push_secret())
    on conflict (topic_key, subscription_key) do update
    set endpoint = excluded.endpoint, timeout_seconds = excluded.timeout_seconds,
        headers = excluded.headers, header_names = excluded.header_names,
        failures = 0, paused_until = null, is_probed = false;
end
$$;

comment on function pubsub.save_push is 'Let a subscription have the setting push, which is checked.';

/*
 * push_secret — what signs the pushes of a subscription now.
 */
create function pubsub.push_secret(p_topic_key bigint, p_subscription_key bigint)
returns text
-- not sql, which would be put into statements of those who may not see it
language plpgsql stable parallel safe
as $$
begin
    return (
        select e.secret from pubsub_data.push_endpoints e
        where e.topic_key = p_topic_key and e.subscription_key = p_subscription_key
    );
end
$$;

comment on function pubsub.push_secret is 'What signs the pushes of a subscription now.';

/*
 * shown_push — the setting push of a subscription, as people see it.
 *
 * In       p_with_secret: also what signs
 * Out      null when it has none. Members that do not apply are left out; stopped: true until push is set again
 */
create function pubsub.shown_push(
    p_topic_key bigint, p_subscription_key bigint, p_with_secret boolean default false
)
returns json
language sql stable parallel safe
begin atomic
    select json_strip_nulls(json_build_object(
        'endpoint', e.endpoint,
        'timeout_seconds', e.timeout_seconds,
        'header_names', case when e.header_names <> '{}' then e.header_names end,
        'secret', case when p_with_secret then pubsub.push_secret(p_topic_key, p_subscription_key) end,
        'previous_secret_until', case when e.previous_secret_until > now() then e.previous_secret_until end,
        'failures', e.failures,
        'paused_until', case when e.paused_until > now() and isfinite(e.paused_until) then e.paused_until end,
        'stopped', case when not isfinite(e.paused_until) then true end,
        'last_error', e.last_error,
        'last_failed_at', e.last_failed_at))
    from pubsub_data.push_endpoints e
    where e.topic_key = p_topic_key and e.subscription_key = p_subscription_key;
end;

comment on function pubsub.shown_push is
    'The setting push of a subscription as people see it, without what is secret in it.';
