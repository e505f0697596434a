-- The secret of the tick, for where there is no Vault, or none that scheduler_owner can read.
--
-- $1 secret text  null to keep none
--
-- Returns nothing.
with forgotten as (delete from scheduler.fallback_secret where $1::text is null)
insert into scheduler.fallback_secret as kept (secret)
select $1::text
 where $1::text is not null
    on conflict (singleton) do update
   set secret = excluded.secret
