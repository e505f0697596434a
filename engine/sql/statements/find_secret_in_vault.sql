-- Whether Vault has the secret of the tick. Run as scheduler_owner. No parameters.
--
-- Returns one row: is_there.
select exists (select
                 from vault.decrypted_secrets d
                 join scheduler.settings s on s.secret_name = d.name
                where d.decrypted_secret is not null) as is_there
