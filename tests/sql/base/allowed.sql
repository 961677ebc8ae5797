/* What a caller may see: lists of ids and of beginnings of ids. */

do $$
declare
    c_proves constant text := 'an id matches itself and its beginnings; null is all and an empty list none';
begin
    assert pubsub.matches_any('user-a', null), c_proves;
    assert not pubsub.matches_any('user-a', '{}'), c_proves;
    assert pubsub.matches_any('user-a', '{x,user-a}'), c_proves;
    assert pubsub.matches_any('user-a', '{x,user-*}'), c_proves;
    assert pubsub.matches_any('user-a', '{user-a*}'), c_proves;
    assert pubsub.matches_any('user-a', '{*}'), c_proves;
    assert not pubsub.matches_any('user-a', '{user,user-,user-ab,User-*,user-b*,a*}'), c_proves;
    -- no other character is a pattern
    assert not pubsub.matches_any('user-a', '{user_a,user%,us*a}'), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'lists hold what is allowed, page by page';
begin
    perform pubsub.create_topic(t.id) from unnest(array['al-a1', 'al-b', 'al-a2']) as t (id);
    perform pubsub.create_subscription(t.id, 'al-b') from unnest(array['al-a1', 'al-b']) as t (id);

    assert array(select l.id from pubsub.list_topics(0, 10, p_allowed => '{al-a*}') l) = '{al-a1,al-a2}', c_proves;
    assert array(select l.id from pubsub.list_topics(1, 10, p_allowed => '{al-a*}') l) = '{al-a2}', c_proves;
    assert array(select l.id from pubsub.list_topics(0, 10, p_allowed => '{}') l) = '{}', c_proves;
    assert array(select l.id from pubsub.list_subscriptions(0, 10, p_allowed => '{al-b}') l) = '{al-b}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a snapshot of a subscription that is not allowed is as if it were not there';
begin
    perform pubsub.create_topic('al-t');
    perform pubsub.create_subscription(s.id, 'al-t') from unnest(array['al-s', 'al-o']) as s (id);
    perform pubsub.create_snapshot('al-n', 'al-s');

    assert array(select l.id from pubsub.list_snapshots(0, 10, p_allowed => '{al-o}') l) = '{}', c_proves;
    assert pg_temp.refusal($q$select pubsub.seek_subscription_to_snapshot('al-o', 'al-n', '{al-o}')$q$)
        = 'PS404 Snapshot not found', c_proves;
    assert pg_temp.refusal($q$select pubsub.delete_snapshot('al-n', '{al-o}')$q$)
        = 'PS404 Snapshot not found', c_proves;
    assert array(select l.id from pubsub.list_snapshots(0, 10, p_allowed => '{al-s}') l) = '{al-n}', c_proves;
    perform pubsub.delete_snapshot('al-n', '{al-*}');
    assert array(select l.id from pubsub.list_snapshots(0, 10, 'al-n') l) = '{}', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a job of a subscription that is not allowed is as if it were not there';
    v_job uuid;
begin
    perform pubsub.create_topic('al-j');
    perform pubsub.create_subscription('al-j', 'al-j');
    select j.id into v_job from pubsub.seek_subscription_to_end('al-j') j;

    assert pg_temp.refusal(format($q$select pubsub.get_job(%L, '{other}')$q$, v_job))
        = 'PS404 Job not found', c_proves;
    assert pg_temp.refusal(format($q$select pubsub.cancel_job(%L, '{other}')$q$, v_job))
        = 'PS404 Job not found', c_proves;
    assert (select g.id from pubsub.get_job(v_job, '{al-*}') g) = v_job, c_proves;
    assert (select g.id from pubsub.cancel_job(v_job, '{al-j}') g) = v_job, c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a timeline has the allowed subscriptions of the topic, if there are any';
    v_message uuid;
begin
    perform pubsub.create_topic('al-m');
    perform pubsub.create_subscription(s.id, 'al-m') from unnest(array['al-m1', 'al-m2']) as s (id);
    select p.message_id into v_message from pubsub.publish_messages('al-m', array['{}'::jsonb]) p;

    assert array(
        select distinct e.subscription_id from pubsub.message_timeline(v_message, '{al-m2,x}') e
    ) = '{al-m2}', c_proves;
    assert pg_temp.refusal(format($q$select pubsub.message_timeline(%L, '{x}')$q$, v_message))
        = 'PS404 Message not found', c_proves;
end
$$;
