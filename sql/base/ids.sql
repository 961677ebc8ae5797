/*
 * Message ids are UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then a sequence number where the
 * random bits go, so that id order is publish order and a range of ids is a range of time.
 */

/*
 * id_at — the lowest id a message published at p_at can have.
 *
 * Out      uuid; times before 1970 give the lowest uuid
 */
create function pubsub.id_at(p_at timestamptz)
returns uuid
-- neither strict nor immutable, which would keep Postgres from inlining it
language sql stable parallel safe
begin atomic
    select case when p_at is not null then
        (lpad(to_hex((greatest(0, date_part('epoch', p_at)) * 1000000)::bigint / 1000), 12, '0')
        || '00000000000000000000')::uuid
    end;
end;

comment on function pubsub.id_at is
    'The lowest message id of a time: compare ids with it to select by publish time.';

/*
 * id_time — when a message was published, to the millisecond, read from its id.
 */
create function pubsub.id_time(p_message_id uuid)
returns timestamptz
language sql immutable parallel safe
begin atomic
    select to_timestamp(
        ('x' || translate(left(p_message_id::text, 13), '-', ''))::bit(48)::bigint / 1000.0);
end;

comment on function pubsub.id_time is 'The publish time in a message id, to the millisecond.';

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
