-- By which column each of some indexes is sorted first: a condition on another one alone reads the whole index.
--
-- $1 schemas text[]
-- $2 names   text[]  of indexes, in the same order
--
-- Returns schema, name, leading (as it is written in a plan; null if it is an expression).
select n.nspname::text as schema, c.relname::text as name, quote_ident(a.attname) as leading
  from unnest($1::text[], $2::text[]) wanted(schema, name)
  join pg_catalog.pg_namespace n on n.nspname = wanted.schema
  join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = wanted.name
  join pg_catalog.pg_index i on i.indexrelid = c.oid
  left join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = nullif(i.indkey[0], 0)
