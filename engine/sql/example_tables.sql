-- Tables of mentors, their assignments and their activity, for `demo`, the tests and the benchmarks; and, for
-- whoever has tables of other names, the indexes that theirs need. Run by `migrate --with-example-tables`.
create table if not exists public.peer_mentors (
  id              uuid primary key,
  user_id         uuid unique,
  organisation_id uuid,
  chapter_id      uuid,
  status          text,
  created_at      timestamptz
);

create table if not exists public.assignments (
  id         uuid primary key,
  mentor_id  uuid,
  status     text,
  expires_at date
);

create table if not exists public.activities (
  id            bigint generated always as identity,
  user_id       uuid,
  activity_date date,
  kind          text
);

-- Serves fetch_page.sql and count_mentors.sql: active mentors in id order, from anywhere. With all behind it that
-- the scenarios want to know of a mentor, they read the index alone, where a chunk of 2,000 lies side by side: in the
-- table it lies on 2,000 pages. Of a million mentors, 22 ms a chunk instead of 27.
create index if not exists peer_mentors_status_id_with_user_id_created_at
    on public.peer_mentors (status, id) include (user_id, created_at);

-- Serves fetch_page.sql and count_mentors.sql, whose statuses are a parameter: a partial index would be of no
-- use to a generic plan. With expires_at behind, scheduler.scenario_expiry reads the index alone.
create index if not exists assignments_mentor_id_status_expires_at
    on public.assignments (mentor_id, status, expires_at);

-- Serves scheduler.scenario_inactivity and scheduler.scenario_milestone.
create index if not exists activities_user_id_activity_date on public.activities (user_id, activity_date);
