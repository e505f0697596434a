-- A stand-in for Supabase's Vault, which no package has: its names and signatures, and that the view does not lend the
-- right to decrypt. What is stored is no more than turned round, so that reading it by mistake shows in a test.
create schema vault;

create table vault.secrets (
  id uuid primary key default gen_random_uuid(),
  name text unique,
  description text not null default '',
  secret text not null,
  key_id uuid,
  nonce bytea default '\x00',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create function vault._crypto_aead_det_decrypt(
  message bytea, additional bytea, key_id bigint, context bytea default 'pgsodium', nonce bytea default null)
returns bytea
language sql immutable
as $$ select convert_to(reverse(convert_from(message, 'UTF8')), 'UTF8') $$;

revoke all on function vault._crypto_aead_det_decrypt from public;

create view vault.decrypted_secrets as
select s.id, s.name, s.description, s.secret,
       convert_from(
         vault._crypto_aead_det_decrypt(
           convert_to(s.secret, 'UTF8'), convert_to(s.id::text, 'UTF8'), 0, 'pgsodium', s.nonce),
         'UTF8') as decrypted_secret,
       s.key_id, s.nonce, s.created_at, s.updated_at
  from vault.secrets s;

create function vault.create_secret(
  new_secret text, new_name text default null, new_description text default '', new_key_id uuid default null)
returns uuid
language sql volatile
as $$
  insert into vault.secrets (secret, name, description) values (reverse(new_secret), new_name, new_description)
  returning id
$$;

create function vault.update_secret(
  secret_id uuid, new_secret text default null, new_name text default null, new_description text default null,
  new_key_id uuid default null)
returns void
language sql volatile
as $$
  update vault.secrets s
     set secret = coalesce(reverse(new_secret), s.secret),
         name = coalesce(new_name, s.name),
         description = coalesce(new_description, s.description),
         updated_at = now()
   where s.id = secret_id
$$;
