/* Every default of a database that changes what SQL means or how it runs, set against us. */
do $$
declare
    v_setting record;
begin
    for v_setting in
        select s.name, s.value
        from (values
            ('standard_conforming_strings', 'off'),
            ('backslash_quote', 'off'),
            ('array_nulls', 'off'),
            ('transform_null_equals', 'on'),
            ('quote_all_identifiers', 'on'),
            ('datestyle', 'SQL, MDY'),
            ('timezone', 'Asia/Shanghai'),
            ('timezone_abbreviations', 'India'),
            ('intervalstyle', 'sql_standard'),
            ('bytea_output', 'escape'),
            ('extra_float_digits', '-15'),
            ('xmloption', 'document'),
            ('default_text_search_config', 'simple'),
            ('check_function_bodies', 'off'),
            ('row_security', 'off'),
            ('client_min_messages', 'error'),
            ('plpgsql.extra_errors', 'all'),
            ('plpgsql.variable_conflict', 'use_column'),
            ('default_transaction_isolation', 'serializable'),
            ('default_transaction_deferrable', 'on'),
            ('statement_timeout', '1s'),
            ('lock_timeout', '1s'),
            ('idle_in_transaction_session_timeout', '1s'),
            ('plan_cache_mode', 'force_custom_plan'),
            ('enable_bitmapscan', 'off'),
            ('enable_hashjoin', 'off'),
            ('enable_mergejoin', 'off'),
            ('enable_hashagg', 'off'),
            ('enable_material', 'off'),
            ('enable_partition_pruning', 'off'),
            ('from_collapse_limit', '1'),
            ('join_collapse_limit', '1'),
            ('geqo_threshold', '2'),
            ('work_mem', '64kB'),
            -- no partitioned table may name it
            ('default_tablespace', 'pg_default'),
            ('search_path', 'trojans, public, pg_catalog')
        ) as s (name, value)
        -- not every version has every setting
        where s.name like '%.%' or s.name in (select p.name from pg_settings p)
    loop
        execute format('alter database %I set %s = %s', current_database(), v_setting.name,
            case when v_setting.name = 'search_path' then v_setting.value
            else quote_literal(v_setting.value) end);
    end loop;
end
$$;
