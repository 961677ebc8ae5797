/* One holder of a job at a time. */

do $$
declare
    c_proves constant text := 'the first holder leads, a second one does not until the lease ends';
begin
    assert pubsub.try_lead('lease', 'first', 60), c_proves;
    assert not pubsub.try_lead('lease', 'second', 60), c_proves;

    update pubsub_data.leaders l set held_until = clock_timestamp() where l.job = 'lease';

    assert pubsub.try_lead('lease', 'second', 60), c_proves;
    assert not pubsub.try_lead('lease', 'first', 60), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'the holder stays the holder and moves the end of its lease';
    v_held_until timestamptz;
begin
    perform pubsub.try_lead('renewed', 'first', 60);

    assert pubsub.try_lead('renewed', 'first', 120), c_proves;

    select l.held_until into v_held_until from pubsub_data.leaders l where l.job = 'renewed';
    assert v_held_until between clock_timestamp() + interval '110 s'
        and clock_timestamp() + interval '120 s', c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a refused holder changes nothing';
    v_before record;
begin
    perform pubsub.try_lead('unchanged', 'first', 60);
    select l.* into v_before from pubsub_data.leaders l where l.job = 'unchanged';

    perform pubsub.try_lead('unchanged', 'second', 600);

    assert (select l = v_before from pubsub_data.leaders l where l.job = 'unchanged'), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'jobs have holders of their own';
begin
    assert pubsub.try_lead('one', 'first', 60), c_proves;
    assert pubsub.try_lead('other', 'second', 60), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'a lease of before the clock was set back holds nobody up';
begin
    perform pubsub.try_lead('stepped', 'first', 60);
    update pubsub_data.leaders l set held_until = l.held_until + interval '1 hour'
    where l.job = 'stepped';

    assert pubsub.try_lead('stepped', 'second', 60), c_proves;
    assert not pubsub.try_lead('stepped', 'first', 60), c_proves;
end
$$;
