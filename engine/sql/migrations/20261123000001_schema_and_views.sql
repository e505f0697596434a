-- The schema, and the three views through which everything else reads the user's tables.
--
-- Whoever has tables of other names makes the schema and the three views first; what is there stays.
create schema if not exists scheduler;
revoke all on schema scheduler from public;

do $$
begin
  if to_regclass('scheduler.mentors') is null then
    create view scheduler.mentors as
      select id, user_id, status, created_at from public.peer_mentors;
  end if;
  if to_regclass('scheduler.assignments') is null then
    create view scheduler.assignments as
      select mentor_id, status, expires_at from public.assignments;
  end if;
  if to_regclass('scheduler.activities') is null then
    create view scheduler.activities as
      select user_id, activity_date from public.activities;
  end if;
end $$;
