-- The lowest and the highest id of active mentors, to cut shards between where there was no time for a sample.
--
-- Takes nothing. Returns one row: lowest, highest; both null where nobody is active. Each is an end of an index on
-- (status, id), or a scan without one, but no sort.
select (select m.id
          from scheduler.mentors m
         where m.status = 'active'
         order by m.id
         limit 1) as lowest,
       (select m.id
          from scheduler.mentors m
         where m.status = 'active'
         order by m.id desc
         limit 1) as highest
