-- Fresh statistics after a seed, so that the first walk is planned for the tables as they are. No parameters.
analyze public.peer_mentors, public.assignments, public.activities
