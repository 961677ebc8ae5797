/*
 * What functions need to be right beside others. The functions of the previous release leave deliver_at
 * null, and are replaced in the same transaction.
 */

-- of a delayed message: nobody gets it before, however it comes to a subscription
alter table pubsub_data.messages add column deliver_at timestamptz;

/*
 * create_subscription, update_subscription and delete_topic keep what these said, and lock the topic
 * before its subscriptions. The keys' own checks lock it after: at the second update of a subscription
 * in one transaction.
 */
alter table pubsub_data.subscriptions drop constraint subscriptions_topic_key_fkey;
alter table pubsub_data.subscriptions drop constraint subscriptions_dead_letter_topic_key_fkey;

-- a sequence that was left behind must not give a key twice
create unique index subscriptions_subscription_key_idx
on pubsub_data.subscriptions (subscription_key);

-- a publication may publish it as one table, and then this says how its rows are told
alter table pubsub_data.acked replica identity full;
