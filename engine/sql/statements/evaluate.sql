-- Evaluate a chunk of mentors with the built-in trigger engine.
--
-- $1 mentor_ids     uuid[]   a chunk
-- $2 scenario_types text[]   null for every enabled one
-- $3 dry_run        boolean  write nothing
-- $4 run_id         uuid     of the run, so that a retry is told `dispatched` for what was sent
--
-- Returns mentor_id, dispatched, suppressed, for the mentors with something due.
select mentor_id, dispatched, suppressed
  from scheduler.evaluate($1::uuid[], $2::text[], $3::boolean, $4::uuid)
