/* Refusals. */

do $$
declare
    c_proves constant text := 'fail_validation raises PS422 with the field as the error''s column';
begin
    assert pg_temp.refusal($q$select pubsub.fail_validation('size', 'too 100% large')$q$)
        = 'PS422(size) too 100% large', c_proves;
end
$$;
