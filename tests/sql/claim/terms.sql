/* What a claim wants. */

do $$
declare
    c_proves constant text := 'consumers and sizes are plain arrays';
    v_case record;
begin
    perform pg_temp.stock('plain.arrays', 1);
    for v_case in
        select * from (values
            ('[0:0]={a}', '{1}', 'PS422(consumer_id) consumer_ids must be a plain array from 1'),
            ('{{a},{b}}', '{1,1}', 'PS422(consumer_id) consumer_ids must be a plain array from 1'),
            ('{a}', '[0:0]={1}', 'PS422(batch_size) batch_sizes must be a plain array from 1'),
            ('{a}', '{{1}}', 'PS422(batch_size) batch_sizes must be a plain array from 1'),
            ('{}', '{}', 'PS422(consumer_id) consumer_id is required'),
            ('{a}', '{1,1}', 'PS422(batch_size) batch_size must be 1 to 1000')
        ) as c (consumers, sizes, refusal)
    loop
        assert pg_temp.refusal(format(
            'select pubsub.consume_messages_for(%L, %L, %L)', 'plain.arrays', v_case.consumers,
            v_case.sizes)) = v_case.refusal, format('%s: %s', c_proves, v_case);
    end loop;
    assert cardinality(pg_temp.claim('plain.arrays')) = 1, c_proves;
end
$$;
