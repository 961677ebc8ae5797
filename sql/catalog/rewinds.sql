/*
 * A rewind tells the sessions that claim that messages came back below what they have read: claims
 * compare the subscription's rewinds with those they noted, and go back to rewound_to.
 */

/*
 * rewind_subscription — tell claims that messages came back which they may have read past.
 *
 * In       p_lowest: the lowest id that came back
 * Effects  claims go back to below it. A connection that has not claimed for long may have missed
 *          earlier rewinds, so the place rises only up to what is still there
 */
create function pubsub.rewind_subscription(
    p_topic_key bigint, p_subscription_key bigint, p_lowest uuid
)
returns void
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    v_lowest_live uuid;
begin
    -- first: another's rewind would bring rows that a look before it does not see
    perform 1 from pubsub_data.subscriptions s
    where s.topic_key = p_topic_key and s.subscription_key = p_subscription_key
    for no key update;
    v_lowest_live := pubsub.oldest_unsettled(p_topic_key, p_subscription_key);
    update pubsub_data.subscriptions s
    set rewinds = s.rewinds + 1,
        rewound_to = greatest(least(s.rewound_to, b.below), l.below)
    from (
        values (pubsub.id_at(pubsub.id_time(p_lowest) - interval '1 ms'))
    ) b (below), (
        values (pubsub.id_at(pubsub.id_time(least(v_lowest_live, p_lowest)) - interval '1 ms'))
    ) l (below)
    where s.topic_key = p_topic_key and s.subscription_key = p_subscription_key;
end
$$;

comment on function pubsub.rewind_subscription is
    'Tell claims of a subscription that messages came back which they may have read past.';
