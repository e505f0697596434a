-- The next page of the walk: active mentors with at least one eligible assignment, in id order.
--
-- $1 first_id  uuid    inclusive, the successor of the last id seen; inclusive so that no id is out of reach
-- $2 last_id   uuid    inclusive
-- $3 statuses  text[]  assignment statuses that make a mentor eligible
-- $4 page_size bigint
--
-- Returns id. `offset 0` has Postgres look at each mentor's assignments by themselves, three pages of an index.
-- Left to join, it reads that index from its beginning to the cursor on every page: 25 ms in the middle of
-- 200,000 mentors, and the walk becomes quadratic. Repeating the bounds for a.mentor_id cures that, and on
-- tables never analyzed is worse: all that is left of the index once per mentor, 4 s for a page of 2,000 among
-- 20,000. As it is, a page of 2,000 takes 1.5 ms wherever it is, where the best join takes 0.5.
select m.id
  from scheduler.mentors m
 where m.status = 'active'
   and m.id >= $1
   and m.id <= $2
   and exists (select
                 from scheduler.assignments a
                where a.mentor_id = m.id
                  and a.status = any ($3::text[])
               offset 0)
 order by m.id
 limit $4
