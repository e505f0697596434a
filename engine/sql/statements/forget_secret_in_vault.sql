-- Take the secret of the tick out of Vault.
--
-- $1 name text
--
-- Returns name, if it was there.
delete from vault.secrets where name = $1 returning name
