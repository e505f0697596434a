-- What the three views read in the end: the tables of the user, through any views between. No parameters.
--
-- Returns oid, relation (its name), reader (as whom it is read), is_hidden (row-level security is on for that reader,
-- and no policy shows it every row), hidden_by (a restrictive policy that applies to it).
--
-- A view reads with the rights of its owner, unless it is made to read with those of who reads it. An owner of a table
-- is not held up by its row-level security, unless that is forced.
with recursive read(relation, reader) as (
  select view::oid, 'scheduler_owner'::regrole::oid
    from unnest('{scheduler.mentors, scheduler.assignments, scheduler.activities}'::regclass[]) view
   union
  select d.refobjid,
         case when exists (select
                             from pg_options_to_table(c.reloptions) o
                            where o.option_name = 'security_invoker'
                              and o.option_value::boolean)
              then r.reader
              else c.relowner
         end
    from read r
    join pg_catalog.pg_class c on c.oid = r.relation and c.relkind = 'v'
    join pg_catalog.pg_rewrite w on w.ev_class = c.oid
    join pg_catalog.pg_depend d
      on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid and d.refclassid = 'pg_class'::regclass
   where d.refobjid <> c.oid)
select c.oid,
       format('%I.%I', n.nspname, c.relname) as relation,
       reader.rolname::text as reader,
       closed.is_so
         and not exists (select
                           from pg_catalog.pg_policy p
                          where p.polrelid = c.oid
                            and p.polpermissive
                            and p.polcmd in ('r', '*')
                            and pg_get_expr(p.polqual, p.polrelid) = 'true'
                            and exists (select from unnest(p.polroles) role(oid)
                                         where role.oid = 0 or pg_has_role(reader.oid, role.oid, 'usage')))
         as is_hidden,
       (select min(p.polname)::text
          from pg_catalog.pg_policy p
         where closed.is_so
           and p.polrelid = c.oid
           and not p.polpermissive
           and p.polcmd in ('r', '*')
           and pg_get_expr(p.polqual, p.polrelid) <> 'true'
           and exists (select from unnest(p.polroles) role(oid)
                        where role.oid = 0 or pg_has_role(reader.oid, role.oid, 'usage'))) as hidden_by
  from read r
  join pg_catalog.pg_class c on c.oid = r.relation and c.relkind in ('r', 'p', 'f', 'm')
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_roles reader on reader.oid = r.reader
 cross join lateral (
       select c.relrowsecurity
                and not (reader.rolsuper or reader.rolbypassrls)
                and (c.relforcerowsecurity or not pg_has_role(reader.oid, c.relowner, 'usage'))) closed(is_so)
 order by relation, reader
