-- The schema and the bookkeeping of the migrations. No parameters.
create schema if not exists scheduler;
revoke all on schema scheduler from public;
create table scheduler.migrations (
  version text primary key,
  name text not null,
  checksum text not null, -- SHA-256 of the file as it was applied, in hex
  applied_at timestamptz not null default now()
)
