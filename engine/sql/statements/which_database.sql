-- Which database of which server this is, told by what every login may see. No parameters.
--
-- Returns one row: name, oid, and started_at of the server, to the microsecond: no other server began in the same one.
-- Addresses don't tell: a pooler or a name server may lie between.
select d.datname::text as name, d.oid, pg_postmaster_start_time() as started_at
  from pg_catalog.pg_database d
 where d.datname = current_database()
