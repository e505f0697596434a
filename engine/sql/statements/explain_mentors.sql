-- How a page of mentors would be read: by id, in order.
--
-- $1 first_id uuid  found again in the plan, where it is the condition of an index
--
-- Returns one row: a plan in JSON.
explain (format json, verbose)
select id, user_id, status, created_at
  from scheduler.mentors
 where id >= $1::uuid
 order by id
 limit 100
