-- Some ids of active mentors, evenly spread over all of them, to cut shards of the same population by.
--
-- $1 size bigint  how many, about; all of them if there are not twice as many
--
-- Returns id, in order. Of an index on (status, id) alone, in its order: 0.1 s for each of its two scans of a
-- million. Assignments are not asked for, which would be a look at each: that shards are about equal is enough.
select numbered.id
  from (select m.id, row_number() over (order by m.id) as number
          from scheduler.mentors m
         where m.status = 'active') numbered
 where numbered.number % (select greatest(count(*) / $1, 1)
                            from scheduler.mentors m
                           where m.status = 'active') = 0
 order by numbered.id
