/*
 * How many values a filter has, by which publishing chooses how to look at a long message. A binary
 * before this keeps working: it writes no filters but through the functions, which come with this.
 */
alter table pubsub_data.subscriptions add column filter_values int;

update pubsub_data.subscriptions s
set filter_values = (
    select count(*)
    from jsonb_path_query(s.filter::jsonb, 'strict $.** ? (@.type() != "object" &&
        (@.type() != "array" || @.size() == 0))')
)
where s.filter is not null;
