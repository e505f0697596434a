-- Which scenarios there are, the disabled ones too: they are told apart from those that never were. No parameters.
--
-- Returns scenario_type, enabled.
select scenario_type, enabled from scheduler.scenario_evaluation_config order by scenario_type
