-- Have pg_cron tick; a job of that name is changed. Run as scheduler_cron.
--
-- $1 name           text
-- $2 schedule       text    five fields, in the time zone of cron.timezone, by default GMT
-- $3 scenario_types text[]  null for every enabled one
--
-- Returns job_id.
select cron.schedule(
         $1::text,
         $2::text,
         case when $3::text[] is null
              then 'select scheduler.invoke()'
              else format('select scheduler.invoke(%L)', $3::text[])
         end) as job_id
