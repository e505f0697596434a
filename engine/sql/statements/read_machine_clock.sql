-- What time it is on the server's machine, while this statement runs. No parameters.
--
-- Returns seconds since 1970 in UTC.
select extract(epoch from clock_timestamp())::double precision as seconds
