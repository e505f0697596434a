-- Which scenarios there are, the disabled ones too: they are told apart from those that never were. No parameters.
--
-- Returns scenario_type, enabled, enabled_since: runs that began before are not known to have evaluated it all the
-- way; null where it always was enabled.
select scenario_type, enabled, enabled_since from scheduler.scenario_evaluation_config order by scenario_type
