-- A run lives, and has come this far.
--
-- $1  id                uuid
-- $2  low_water_mark    uuid    null as long as there is none
-- $3  stretch_mentors   bigint  finished without a gap
-- $4  stretch_evaluated bigint  evaluated of those
-- $5  total_evaluated   bigint
-- $6  total_errors      bigint
-- $7  total_unprocessed bigint  fetched, and not finished
-- $8  total_dispatched  bigint
-- $9  total_suppressed  bigint
-- $10 dispatched        jsonb   by scenario type
-- $11 suppressed        jsonb   by scenario type
-- $12 errors            jsonb   by class
--
-- Returns id, or no row if the run has lost its lease.
update scheduler.runs
   set heartbeat_at = now(),
       low_water_mark = $2,
       stretch_mentors = $3,
       stretch_evaluated = $4,
       total_evaluated = $5,
       total_errors = $6,
       total_unprocessed = $7,
       total_dispatched = $8,
       total_suppressed = $9,
       dispatched = $10,
       suppressed = $11,
       errors = $12
 where id = $1
   and verdict = 'running'
returning id
