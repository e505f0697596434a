-- Every scenario as it is configured. No parameters.
--
-- Returns scenario_type, enabled, params.
select scenario_type, enabled, params from scheduler.scenario_evaluation_config order by scenario_type
