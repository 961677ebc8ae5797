/*
 * Refusals: what a caller reads when an argument cannot be.
 */

/*
 * fail_validation — refuse an argument.
 *
 * In       p_path: the keys and positions that lead to the fault, for an argument with an inside
 * Errors   PS422 always; the error's column is the argument's public name, its detail the path
 */
create function pubsub.fail_validation(p_field text, p_message text, p_path jsonb default null)
returns void
language plpgsql immutable parallel safe
as $$
begin
    if p_path is null then
        raise exception '%', p_message using errcode = 'PS422', column = p_field;
    end if;
    raise exception '%', p_message
        using errcode = 'PS422', column = p_field, detail = p_path::text;
end
$$;

comment on function pubsub.fail_validation is
    'Raise PS422 for one field: every refusal of an argument goes through it.';
