-- The secret of the tick, for where there is no Vault, or none that scheduler_owner can read.
--
-- $1 secret text  null to keep none
--
-- Returns nothing.
update scheduler.settings set fallback_secret = $1
