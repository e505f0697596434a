-- The secret of the tick, in Vault.
--
-- $1 secret text
-- $2 name   text
--
-- Returns one row.
select case
         when kept.id is null then vault.create_secret($1, $2, 'X-Scheduler-Secret of the scenario scheduler') is not null
         else vault.update_secret(kept.id, $1) is null
       end
  from (values ($2::text)) wanted(name)
  left join vault.secrets kept on kept.name = wanted.name
