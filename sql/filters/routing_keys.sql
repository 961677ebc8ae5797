/*
 * Routing keys: words that are joined by ".", as topic exchanges of AMQP have them. In the operator of a filter,
 * {"routing-key": "order.*.#"}, "*" is exactly one word and "#" any number of them, none included; a word is
 * what has at least one character, and every other character stands for itself.
 */

/* quote_regex — a text in which no character means anything to a regular expression. */
create function pubsub.quote_regex(p_text text)
returns text
language sql immutable parallel safe
begin atomic
    select regexp_replace(p_text, $r$([].*+?^$(){}|\\[])$r$, $r$\\\1$r$, 'g');
end;

comment on function pubsub.quote_regex is
    'A text in which no character means anything to a regular expression.';

/*
 * routing_key_operator — what a routing key asks of a string, which may be less than wildcards can.
 *
 * Out      exists: there is one · equals: it is this one · routing-key: its words fit
 */
create function pubsub.routing_key_operator(p_words text[])
returns text
language sql immutable parallel safe
begin atomic
    select case
        when '#' = all(p_words) then 'exists'
        when p_words && '{*,#}' then 'routing-key'
        else 'equals'
    end;
end;

comment on function pubsub.routing_key_operator is
    'What the words of a routing key ask of a string: exists, equals or routing-key.';

/*
 * routing_key_regex — the strings that a routing key with wildcards accepts, as a regular expression.
 *
 * In       p_words: of the key, one at least no "#"
 */
create function pubsub.routing_key_regex(p_words text[])
returns text
language plpgsql immutable parallel safe
as $$
declare
    -- from here to the end, no word is empty: asked once, so that "#" may be any characters up to a dot
    c_has_words constant text := $r$(?!(?:.*\.)?(?:\.|$))$r$;
    c_dot constant text := $r$\.$r$;
    v_word text;
    v_regex text := '';
    -- a "#" is to come: after all "*" next to it, which says the same and needs no second one
    v_any boolean := false;
begin
    foreach v_word in array p_words loop
        if v_word = '#' then
            v_any := true;
        elsif v_word = '*' then
            v_regex := v_regex || '[^.]+' || c_dot;
        else
            v_regex := v_regex || case when v_any then $r$(?:.*\.)?$r$ else '' end
                || pubsub.quote_regex(v_word) || c_dot;
            v_any := false;
        end if;
    end loop;
    v_regex := left(v_regex, -length(c_dot));
    return '^' || case when '#' = any(p_words) then c_has_words else '' end || v_regex
        || case when v_any then $r$(?:\..*)?$r$ else '' end || '$';
end
$$;

comment on function pubsub.routing_key_regex is
    'The strings that the words of a routing key accept, as a regular expression.';

/*
 * compile_routing_key — {"routing-key": key} as a jsonpath predicate over a field.
 *
 * Errors   PS422 (filter)
 */
create function pubsub.compile_routing_key(p_subject text, p_key jsonb, p_path jsonb)
returns text
language plpgsql immutable parallel safe
as $$
declare
    c_max_characters constant int := 1024;
    -- Postgres makes a transition for each, which takes it some us a hundred
    c_max_transitions constant int := 10000;
    v_words constant text[] := string_to_array(p_key #>> '{}', '.');
    v_first int;
begin
    if jsonb_typeof(p_key) <> 'string' then
        perform pubsub.fail_validation('filter', 'routing-key must be a string', p_path);
    end if;
    if length(p_key #>> '{}') not between 1 and c_max_characters then
        perform pubsub.fail_validation('filter',
            format('routing-key must have 1 to %s characters', c_max_characters), p_path);
    end if;
    if '' = any(v_words) then
        perform pubsub.fail_validation('filter', 'a word of routing-key must not be empty', p_path);
    end if;
    case pubsub.routing_key_operator(v_words)
        when 'exists' then
            return format('exists(%s)', p_subject);
        when 'equals' then
            return format('%s == %s', p_subject, p_key);
        else
            v_first := least(array_position(v_words, '*'), array_position(v_words, '#'));
    end case;
    if cardinality(array_positions(v_words, '*')) * (
        select count(distinct c.character) from regexp_split_to_table(p_key #>> '{}', '') c (character)
    ) > c_max_transitions then
        perform pubsub.fail_validation('filter', format('routing-key is too complex: the number of "*" '
            'times that of its different characters must be at most %s', c_max_transitions), p_path);
    end if;
    -- most keys that do not match differ in the first words: no regular expression is needed for those
    return case when v_first > 1 then format('%s starts with %s && ', p_subject,
            to_jsonb(array_to_string(v_words[: v_first - 1], '.'))) else '' end
        || format('%s like_regex %s flag "s"', p_subject,
            to_jsonb(pubsub.routing_key_regex(v_words)));
end
$$;

comment on function pubsub.compile_routing_key is
    'The operator routing-key of a filter as a jsonpath predicate over a field.';
