/*
 * Ids of topics and subscriptions have 1 to 600 characters without space or control characters: front
 * doors of other protocols have longer names, with other characters, than the native one allows. The
 * previous binary keeps working: what it makes fits, and it reads ids as text.
 */

alter table pubsub_data.topics
drop constraint topics_topic_id_valid,
add constraint topics_topic_id_valid
    check (char_length(topic_id) between 1 and 600 and topic_id !~ '[[:space:][:cntrl:]]');

alter table pubsub_data.subscriptions
drop constraint subscriptions_subscription_id_valid,
add constraint subscriptions_subscription_id_valid
    check (char_length(subscription_id) between 1 and 600
        and subscription_id !~ '[[:space:][:cntrl:]]');
