-- Where the tick goes to. No parameters.
--
-- Returns url, timeout_ms, has_fallback_secret, installed_at, installed_age in seconds since then; no row if it was
-- never installed. Not the secret.
select url,
       timeout_ms,
       exists (select from scheduler.fallback_secret) as has_fallback_secret,
       installed_at,
       extract(epoch from now() - installed_at)::double precision as installed_age
  from scheduler.settings
