-- How each enabled scenario would read for one mentor. Run as scheduler_owner, after favour_indexes.sql. No
-- parameters.
--
-- Leaves in scheduler.found, by scenario type, {"plan": …}, or {"sqlstate": "…"} of one that can't be planned. The
-- call is the one of scheduler.evaluate, into which the function's body is inlined.
do $$
declare
  scenario record;
  plan json;
  found jsonb := '{}';
begin
  for scenario in
    select c.scenario_type, c.params
      from scheduler.scenario_evaluation_config c
     where c.enabled
     order by c.scenario_type
  loop
    begin
      execute format(
        'explain (format json, verbose) select d.mentor_id, d.user_id, d.payload '
        'from scheduler.%I(''{00000000-0000-4000-8000-000000000000}''::uuid[], now(), %L::jsonb) d',
        'scenario_' || scenario.scenario_type, scenario.params)
      into plan;
      found := found || jsonb_build_object(scenario.scenario_type, jsonb_build_object('plan', plan));
    exception
      when others then
        found := found || jsonb_build_object(scenario.scenario_type, jsonb_build_object('sqlstate', sqlstate));
    end;
  end loop;
  perform set_config('scheduler.found', found::text, true);
end $$
