/*
 * What a caller may see or do is a list of ids, and of beginnings of ids that end in *: the objects of
 * its scopes. Functions that find their object themselves take it as p_allowed; null allows all. What is
 * not allowed is as if it were not there.
 */

/* matches_any — whether an id is in a list of ids and beginnings; null is all of them. */
create function pubsub.matches_any(p_id text, p_allowed text[])
returns boolean
language sql immutable parallel safe
begin atomic
    select p_allowed is null or exists (
        select
        from unnest(p_allowed) as a (pattern)
        where a.pattern = p_id
            or right(a.pattern, 1) = '*' and starts_with(p_id, left(a.pattern, -1))
    );
end;

comment on function pubsub.matches_any is
    'Whether an id is in a list of ids, and of beginnings of ids that end in *; null is all.';
