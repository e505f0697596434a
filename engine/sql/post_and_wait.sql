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
import http.client, io, json, socket, ssl, time, urllib.parse

deadline = time.monotonic() + timeout_ms / 1000
MOST = 64 * 1024


def left():
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


# The time-out of a socket is for each part that arrives, and somebody can send an answer, its headers too, byte by
# byte for ever. Likewise it is for each address of a name.
class Answer(io.RawIOBase):
    def __init__(self, connected):
        self.connected = connected

    def makefile(self, mode):
        return io.BufferedReader(self)

    def readable(self):
        return True

    def readinto(self, part):
        self.connected.settimeout(left())
        return self.connected.recv_into(part)


def connect(host, port):
    fault = OSError()
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connected = socket.socket(family, kind, protocol)
        try:
            connected.settimeout(left())
            connected.connect(address)
            return connected
        except OSError as error:
            connected.close()
            fault = error
    raise fault


connection = None
status, text, fault = None, None, None
try:
    where = urllib.parse.urlsplit(url)
    port = where.port or {"https": 443, "http": 80}[where.scheme]
    # It makes the request; what it is connected to is ours.
    connection = http.client.HTTPConnection(where.hostname, port)
    connection.default_port = {"https": 443, "http": 80}[where.scheme]
    connection.sock = connect(where.hostname, port)
    if where.scheme == "https":
        connection.sock.settimeout(left())
        context = ssl.create_default_context()
        connection.sock = context.wrap_socket(connection.sock, server_hostname=where.hostname)
    connection.sock.settimeout(left())
    target = (where.path or "/") + ("?" + where.query if where.query else "")
    connection.request("POST", target, body.encode(), json.loads(headers))
    answer = http.client.HTTPResponse(Answer(connection.sock), method="POST")
    answer.begin()
    data = b""
    while len(data) < MOST and (part := answer.read1(MOST - len(data))):
        data += part
    status, text = answer.status, data.decode("utf-8", "replace").replace("\x00", "")
except TimeoutError:
    fault = "timeout"
except Exception as error:
    # Without the error's own words, which can name what was sent.
    fault = type(error).__name__
finally:
    if connection is not None:
        connection.close()
return {"status_code": status, "body_of_answer": text, "error": fault}
$$;

alter function scheduler.post_and_wait owner to scheduler_owner;
revoke all on function scheduler.post_and_wait from public;
