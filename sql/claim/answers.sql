/*
 * Answers are bounded in bytes where the caller says so, so that neither side must hold more at once: a
 * claim gives back itself what it has chosen beyond the bound.
 */

/*
 * fit_messages — which of some messages go into an answer of so many bytes.
 *
 * Out      kept: the first of them, at least one, with bytes in all
 */
create function pubsub.fit_messages(
    p_topic_key bigint, p_message_ids uuid[], p_max_bytes bigint,
    out kept uuid[], out bytes bigint
)
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_id uuid;
    v_bytes bigint;
begin
    fit_messages.kept := '{}';
    fit_messages.bytes := 0;
    foreach v_id in array p_message_ids loop
        -- one after the other: what does not fit is not unpacked, but for the first of it
        select 1000 + octet_length(m.payload::text) + coalesce(octet_length(m.attributes::text), 0)
            + coalesce(octet_length(m.ordering_key), 0)
        into v_bytes
        from pubsub_data.messages m
        where m.topic_key = p_topic_key and m.message_id = v_id
        limit 1;
        v_bytes := coalesce(v_bytes, 0);
        exit when fit_messages.kept <> '{}' and fit_messages.bytes + v_bytes > p_max_bytes;
        fit_messages.kept := fit_messages.kept || v_id;
        fit_messages.bytes := fit_messages.bytes + v_bytes;
    end loop;
end
$$;

comment on function pubsub.fit_messages is
    'Which of some messages go into an answer of so many bytes, in their order: at least one.';
