-- Where the tick goes to. No parameters.
--
-- Returns url, timeout_ms, has_fallback_secret; no row if it was never installed. Not the secret.
select url, timeout_ms, exists (select from scheduler.fallback_secret) as has_fallback_secret from scheduler.settings
