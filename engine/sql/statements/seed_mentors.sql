-- Mentors to try the service on, in the example tables: the same for the same arguments, ids random to look at.
--
-- $1 mentors bigint  how many
-- $2 seed    text    another seed, other mentors
--
-- Returns mentors, how many were inserted; those that are there already stay as they are. One in five is
-- paused or deactivated, and one in ten has no eligible assignment. Activity has a long tail: most mentors
-- have one or two, some have dozens, and one in eight has none within the last two weeks. One assignment in
-- twelve ends within a week.
with drawn as (
  select md5($2 || ':mentor:' || i)::uuid as id,
         md5($2 || ':user:' || i)::uuid as user_id,
         md5($2 || ':assignment:' || i)::uuid as assignment_id,
         md5($2 || ':organisation:' || i % 7)::uuid as organisation_id,
         md5($2 || ':chapter:' || i % 40)::uuid as chapter_id,
         ('x' || substr(md5($2 || ':status:' || i), 1, 6))::bit(24)::int / 16777216.0 as status_draw,
         ('x' || substr(md5($2 || ':assigned:' || i), 1, 6))::bit(24)::int / 16777216.0 as assigned_draw,
         ('x' || substr(md5($2 || ':expiry:' || i), 1, 6))::bit(24)::int / 16777216.0 as expiry_draw,
         ('x' || substr(md5($2 || ':activity:' || i), 1, 6))::bit(24)::int / 16777216.0 as activity_draw,
         ('x' || substr(md5($2 || ':idle:' || i), 1, 6))::bit(24)::int / 16777216.0 as idle_draw
    from generate_series(1, $1::bigint) i),
mentors as (
  insert into public.peer_mentors (id, user_id, organisation_id, chapter_id, status, created_at)
  select id, user_id, organisation_id, chapter_id,
         case when status_draw < 0.8 then 'active' when status_draw < 0.9 then 'paused' else 'deactivated' end,
         now() - interval '30 days' - activity_draw * interval '600 days'
    from drawn
      on conflict do nothing
  returning id),
assignments as (
  insert into public.assignments (id, mentor_id, status, expires_at)
  select assignment_id, id,
         case when assigned_draw < 0.9 then 'active' else 'ended' end,
         (now() at time zone 'utc')::date + (1 + expiry_draw * 84)::int
    from drawn join mentors using (id)),
activities as (
  insert into public.activities (user_id, activity_date, kind)
  select user_id,
         (now() at time zone 'utc')::date
           - case when idle_draw < 0.125 then 15 else 0 end
           - floor(nth * (1 + idle_draw * 5))::int,
         (array['conversation', 'visit', 'course'])[1 + nth % 3]
    from drawn join mentors using (id)
   cross join lateral generate_series(0, floor(power(activity_draw, 20) * 60)::int) nth)
select count(*) as mentors from mentors
