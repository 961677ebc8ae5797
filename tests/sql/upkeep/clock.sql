/* A clock that was set back. */

do $$
declare
    c_proves constant text := 'a clock that goes on changes nothing';
begin
    perform pg_temp.stock('on');
    assert pubsub.notice_clock() is null, c_proves;
    assert pubsub.notice_clock() is null, c_proves;
    assert (select s.rewinds = 0 from pubsub_data.subscriptions s where s.subscription_id = 'on'),
        c_proves;
end
$$;

do $$
declare
    c_proves constant text :=
        'once the clock was set back, a session that was idle meanwhile reads again from there';
    v_ids uuid[] := pg_temp.stock('back', 2);
    v_keys record := pubsub.subscription_keys('back');
    v_setting text := pubsub.hint_name('claim', v_keys.subscription_key);
    v_hint pubsub.claim_hint;
begin
    -- it has read past them, and looks for no stragglers
    perform pubsub.notice_clock();
    perform pg_temp.reconnect('back');
    v_hint := (pubsub.micros(clock_timestamp()), 0, pubsub.id_at(clock_timestamp()), 0, 0, 0,
        pubsub.micros(clock_timestamp() + interval '50 s'),
        pubsub.micros(clock_timestamp() + interval '50 s'),
        '00000000-0000-0000-0000-000000000000', 1, 0);
    perform set_config(v_setting, v_hint::text, false);
    perform pg_sleep(0.002);
    v_hint.head := pubsub.id_at(clock_timestamp());
    perform set_config(v_setting, v_hint::text, false);
    assert pg_temp.claim('back') = '{}', c_proves;

    update pubsub_data.clock c set seen_at = clock_timestamp() + interval '1 hour';
    assert pubsub.notice_clock() > interval '59 minutes', c_proves;

    assert pg_temp.claim('back') = v_ids, c_proves;
    assert pubsub.notice_clock() is null, c_proves || ': once';
end
$$;
