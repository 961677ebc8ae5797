/* The lanes that a claim has to itself. */

/* lanes_locked — how many lanes this transaction has. */
create function pg_temp.lanes_locked()
returns bigint
language sql volatile
as $$
    select count(*) from pg_locks l
    where l.locktype = 'advisory' and l.objsubid = 1 and l.pid = pg_backend_pid()
$$;

do $$
declare
    c_proves constant text := 'lane_lock tells lanes and subscriptions apart, and is below 0';
begin
    assert (
        select count(distinct k.key) = 1000 and max(k.key) < 0
        from generate_series(1, 10) s, generate_series(1, 100) l,
            pubsub.lane_lock(s, 'lane ' || l) k (key)
    ), c_proves;
    assert pubsub.lane_lock(1, 'a') = pubsub.lane_lock(1, 'a'), c_proves;
end
$$;

do $$
declare
    c_proves constant text := 'lock_lanes takes what it needs, up to 100 lanes a transaction';
    v_lanes text[] := array(select 'l' || n from generate_series(1, 150) n);
    v_before bigint[] := array(select n from generate_series(0, 149) n);
    v_locked record;
begin
    begin
        v_locked := pubsub.lock_lanes(1, v_lanes, array_fill(5::bigint, array[150]), v_before, 3);
        assert v_locked.locked = v_lanes[:3] and v_locked.tried = 3, c_proves;
        -- again and again the same
        for n in 1 .. 200 loop
            v_locked := pubsub.lock_lanes(1, v_lanes[:2], '{1,1}', '{0,1}', 2);
            assert v_locked.locked = v_lanes[:2] and v_locked.tried = 2, c_proves;
        end loop;
        assert pg_temp.lanes_locked() = 3, c_proves;

        v_locked := pubsub.lock_lanes(1, v_lanes, array_fill(1::bigint, array[150]), v_before, 1000);
        assert v_locked.locked = v_lanes[:100] and v_locked.tried = 100, c_proves;
        assert pg_temp.lanes_locked() = 100, c_proves;
        v_locked := pubsub.lock_lanes(2, v_lanes, array_fill(1::bigint, array[150]), v_before, 1000);
        assert v_locked.locked = '{}' and v_locked.tried = 0, c_proves || ': of all subscriptions';
        v_locked := pubsub.lock_lanes(1, v_lanes[99:102], '{1,1,1,1}', '{0,1,2,3}', 1000);
        assert v_locked.locked = v_lanes[99:100] and v_locked.tried = 2, c_proves || ': its own again';
        raise exception using errcode = 'ZZ001';
    exception when sqlstate 'ZZ001' then
        null;
    end;
    assert pg_temp.lanes_locked() = 0, c_proves || ': until it rolls back';
    v_locked := pubsub.lock_lanes(1, v_lanes[:1], '{1}', '{0}', 1);
    assert v_locked.locked = v_lanes[:1] and pg_temp.lanes_locked() = 1, c_proves || ': anew';
end
$$;
