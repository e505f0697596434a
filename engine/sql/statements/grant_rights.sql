-- Give the roles what they need of the tables of the user: see scheduler.grant_rights. No parameters.
--
-- Returns done, a row for each right that was not there yet.
select done from scheduler.grant_rights() granted(done)
