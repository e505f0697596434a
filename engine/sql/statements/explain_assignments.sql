-- How the assignments of one mentor would be read, with the statuses that everybody asks for.
--
-- $1 mentor_id uuid    found again in the plan, where it is the condition of an index
-- $2 statuses  text[]
--
-- Returns one row: a plan in JSON.
explain (format json, verbose)
select mentor_id, status, expires_at
  from scheduler.assignments
 where mentor_id = $1::uuid
   and status = any ($2::text[])
