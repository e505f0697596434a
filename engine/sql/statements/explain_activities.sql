-- How the activity of one user since a day would be read.
--
-- $1 user_id       uuid  both found again in the plan, where they are the condition of an index
-- $2 activity_date date
--
-- Returns one row: a plan in JSON.
explain (format json, verbose)
select user_id, activity_date
  from scheduler.activities
 where user_id = $1::uuid
   and activity_date >= $2::date
