-- Posting without pg_net, over plpython3u. Run by `cron install --with-plpython3u`, by a superuser.
--
-- How it differs from pg_net: it posts at once instead of after the commit, and it waits for the answer, so that
-- the transaction, and the connection of pg_cron's worker, last as long as the run; a cancel is heard when the
-- time is up, not before. It follows no redirect, reads 64 KiB of an answer at most, and verifies certificates
-- against the authorities of the server's own system.
create extension if not exists plpython3u;

create or replace function scheduler.post_and_wait(
  url text, headers text, body text, timeout_ms integer,
  out status_code integer, out body_of_answer text, out error text)
language plpython3u volatile
set search_path = pg_catalog, pg_temp
as $$
import http.client, json, time, urllib.parse

deadline = time.monotonic() + timeout_ms / 1000
MOST = 64 * 1024


def left():
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


connection = None
status, text, fault = None, None, None
try:
    where = urllib.parse.urlsplit(url)
    kinds = {"https": http.client.HTTPSConnection, "http": http.client.HTTPConnection}
    connection = kinds[where.scheme](where.hostname, where.port, timeout=left())
    target = (where.path or "/") + ("?" + where.query if where.query else "")
    connection.request("POST", target, body.encode(), json.loads(headers))
    connection.sock.settimeout(left())
    answer = connection.getresponse()
    status, data = answer.status, b""
    # Part by part: the time-out of a socket is for each part, and somebody can send them one by one for ever.
    while len(data) < MOST:
        if connection.sock is not None:
            connection.sock.settimeout(left())
        part = answer.read1(MOST - len(data))
        if not part:
            break
        data += part
    text = data.decode("utf-8", "replace").replace("\x00", "")
except TimeoutError:
    status, text, fault = None, None, "timeout"
except Exception as error:
    # Without the error's own words, which can name what was sent.
    status, text, fault = None, None, type(error).__name__
finally:
    if connection is not None:
        connection.close()
return {"status_code": status, "body_of_answer": text, "error": fault}
$$;

alter function scheduler.post_and_wait owner to scheduler_owner;
revoke all on function scheduler.post_and_wait from public;
