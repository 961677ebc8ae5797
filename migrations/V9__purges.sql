/*
 * A purge gives a subscription a new key and leaves the old one to be cleaned up, as a deletion does. Calls that
 * looked the old key up must tell the two apart. The previous binary keeps working: it writes no such rows, and
 * cleans them up like the others.
 */

-- the subscription lives on under another key
alter table pubsub_data.deleted_subscriptions add column is_purged boolean not null default false;
