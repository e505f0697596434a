-- Take away what post_and_wait.sql made, but for plpython3u itself, which others may use. No parameters.
drop function if exists scheduler.post_and_wait(text, text, text, integer)
