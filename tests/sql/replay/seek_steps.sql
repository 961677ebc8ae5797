/* Steps of seeks. */

do $$
declare
    c_proves constant text := 'when the transactions of its begin are over, a new one looks once more';
    v_arguments jsonb := '{"settle_upto": "00000000-0000-0000-0000-000000000001",
        "upto": "00000000-0000-0000-0000-000000000002"}';
    v_catching jsonb;
begin
    assert pubsub.catch_up_seek(v_arguments) = v_arguments, c_proves || ': an ordinary seek does not';
    v_arguments := v_arguments || '{"catch_up": {"begun_by": "3",
        "from": "00000000-0000-0000-0000-000000000001"}}';
    v_catching := pubsub.catch_up_seek(v_arguments);
    assert v_catching - 'catch_up' = v_arguments - 'catch_up'
        and (v_catching -> 'catch_up' ->> 'upto')::uuid <= pubsub.seek_end()
        and v_catching -> 'catch_up' ? 'horizon', c_proves || ': notes what is open';
    assert pubsub.catch_up_seek(v_catching) = v_catching, c_proves || ': waits';
    v_catching := jsonb_set(v_catching, '{catch_up,not_before}', to_jsonb(now() - interval '1 hour'));
    -- this transaction began before it
    v_catching := jsonb_set(v_catching, '{catch_up,horizon}', '"4611686018427387904"');
    assert pubsub.catch_up_seek(v_catching) = v_catching, c_proves || ': for transactions';
    v_catching := jsonb_set(v_catching, '{catch_up,horizon}', '"3"');
    assert pubsub.catch_up_seek(v_catching) = jsonb_build_object('catching_up', true,
        'settle_upto', v_catching -> 'catch_up' -> 'from', 'upto', v_catching -> 'catch_up' -> 'upto'),
        c_proves;
end
$$;
