-- Which session of the server this is. No parameters.
--
-- Returns session, the id of its process.
select pg_backend_pid() as session
