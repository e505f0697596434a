-- Give the owner the use of pg_net and of Vault: see scheduler.grant_tick_rights. No parameters.
--
-- Returns done, a row for what was changed or not allowed.
select done from scheduler.grant_tick_rights() granted(done)
