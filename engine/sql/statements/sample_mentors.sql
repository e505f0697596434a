-- Some ids of active mentors, evenly spread over all of them, to cut shards of the same population by.
--
-- $1 size bigint  how many, about; all of them if there are not twice as many
--
-- Returns id, in order: numbered as they come out of an index on (status, id), which is all that is read of a
-- vacuumed table, and counted whichever way costs less. Assignments are not asked for, which would be a look at
-- each: that shards are about equal is enough.
select numbered.id
  from (select m.id, row_number() over (order by m.id) as number
          from scheduler.mentors m
         where m.status = 'active') numbered
 where numbered.number % (select greatest(count(*) / $1, 1)
                            from scheduler.mentors m
                           where m.status = 'active') = 0
 order by numbered.id
