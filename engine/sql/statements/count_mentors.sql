-- How many mentors the walk would find in a range of ids at this moment.
--
-- $1 first_id  uuid    inclusive
-- $2 last_id   uuid    inclusive
-- $3 statuses  text[]  assignment statuses that make a mentor eligible
--
-- Returns mentors. The same conditions as fetch_page.sql, so that what was fetched and what is left add up.
-- `offset 0` for the sake of tables never analyzed, see there.
select count(*) as mentors
  from scheduler.mentors m
 where m.status = 'active'
   and m.id >= $1
   and m.id <= $2
   and exists (select
                 from scheduler.assignments a
                where a.mentor_id = m.id
                  and a.status = any ($3::text[])
               offset 0)
