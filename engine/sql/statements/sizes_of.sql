-- How large some tables are.
--
-- $1 schemas text[]
-- $2 names   text[]  of tables, in the same order
--
-- Returns schema, name, oid, bytes.
select n.nspname::text as schema, c.relname::text as name, c.oid, pg_relation_size(c.oid) as bytes
  from unnest($1::text[], $2::text[]) wanted(schema, name)
  join pg_catalog.pg_namespace n on n.nspname = wanted.schema
  join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = wanted.name
