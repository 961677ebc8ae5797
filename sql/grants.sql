/*
 * Routines are executable by everyone unless that is taken away. Only the owner may call them until
 * somebody is granted usage on schema pubsub and execute on a routine.
 */
revoke execute on all routines in schema pubsub from public;
