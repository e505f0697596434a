"""This folder is the tick, seen from the database: pg_cron's jobs that call the service, and their answers."""
