-- Can these overrides be used? Tried on a mentor, because some values are only found out where one is compared.
--
-- $1 scenario_types text[]  those that are overridden
-- $2 overrides      jsonb   as scheduler.evaluate takes them
--
-- Returns nothing that matters. Fails with 22023 for what scheduler.evaluate refuses, and with another code for
-- what a scenario's function can't do: for its value, or for this mentor.
select count(*)
  from scheduler.evaluate(
         array(select m.id from scheduler.mentors m where m.status = 'active' and m.user_id is not null limit 1),
         $1::text[],
         true,
         null,
         $2::jsonb)
