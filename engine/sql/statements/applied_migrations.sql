-- The migrations that were applied to this database. No parameters.
--
-- Returns version, checksum.
select version, checksum from scheduler.migrations
