-- Who logged in, as the server sees it. No parameters.
--
-- Returns one row: login, is_superuser.
select session_user::text as login,
       (select r.rolsuper from pg_catalog.pg_roles r where r.rolname = session_user) as is_superuser
