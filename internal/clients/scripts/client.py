"""Makes LLM calls as a plain Python program would, and notes what it saw.

usage: client.py http|asyncio SPEC

http uses http.client; asyncio uses raw streams, whose TLS runs over memory BIOs.
Prints one JSON object on stdout. Times are time.monotonic_ns().
"""

import asyncio
import http.client
import json
import socket
import ssl
import sys
import threading
import time
import urllib.parse


class Events:
    """Finds the response's id and the moments of its content in a body."""

    def __init__(self, out, stream):
        self.out, self.stream, self.buf = out, stream, b""

    def feed(self, data, now):
        self.out["received"] += len(data)
        self.buf += data
        if not self.stream:
            return
        *lines, self.buf = self.buf.split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self.event(line[5:].strip(), now)

    def end(self):
        if not self.stream:
            self.event(self.buf, 0)

    def event(self, data, now):
        try:
            v = json.loads(data)
        except ValueError:
            return
        if not isinstance(v, dict):
            return
        for o in (v, v.get("message"), v.get("response")):
            if isinstance(o, dict) and o.get("id") and not self.out["id"]:
                self.out["id"] = o["id"]
        if now and is_content(v):
            self.out["contents"].append(now)


def is_content(v):
    for choice in v.get("choices") or []:
        d = choice.get("delta") or {}
        if d.get("content") or d.get("reasoning_content") or d.get("refusal") or d.get("tool_calls"):
            return True
    if v.get("type") == "content_block_delta":
        d = v["delta"]
        return bool(d.get("text") or d.get("thinking") or d.get("partial_json"))
    return v.get("type") in ("response.output_text.delta", "response.reasoning_summary_text.delta")


def new_result(index):
    return {"index": index, "id": "", "request_id": "", "status": 0, "ok": False, "error": "",
            "sent": 0, "received": 0, "begin": 0, "written": 0, "contents": [], "end": 0}


class Totals:
    def __init__(self):
        self.sent = self.received = 0
        self.lock = threading.Lock()

    def add(self, sent, received):
        with self.lock:
            self.sent += sent
            self.received += received


class Gate:
    """Holds the calls from number `after` on until a line comes on stdin."""

    def __init__(self, spec):
        self.after = spec["wait_after"] if spec["wait"] else None
        self.open = self.after is None
        self.lock = threading.Lock()

    def pass_(self, index):
        with self.lock:
            if not self.open and index >= self.after:
                print(json.dumps({"waiting": True}), flush=True)
                sys.stdin.readline()
                self.open = True


def counting(base, totals):
    class Counting(base):
        def send(self, data, *a):
            n = super().send(data, *a)
            totals.add(n, 0)
            return n

        def sendall(self, data, *a):
            if isinstance(self, ssl.SSLSocket):
                return super().sendall(data, *a)  # calls send
            super().sendall(data, *a)
            totals.add(len(data), 0)

        def recv_into(self, *a):
            n = super().recv_into(*a)
            totals.add(0, n)
            return n

    return Counting


def run_http(spec, totals):
    url = urllib.parse.urlsplit(spec["base_url"])
    gate, results = Gate(spec), {}

    def connect():
        if url.scheme == "https":
            ctx = ssl.create_default_context(cafile=spec["ca"])
            ctx.sslsocket_class = counting(ssl.SSLSocket, totals)
            conn = http.client.HTTPSConnection(url.hostname, url.port, timeout=600, context=ctx)
            conn.connect()
        else:
            conn = http.client.HTTPConnection(url.hostname, url.port, timeout=600)
            conn.connect()
            conn.sock = counting(socket.socket, totals)(fileno=conn.sock.detach())
            conn.sock.settimeout(600)
        for other in spec["before"]:
            conn.request(other["method"], other["path"], body=other["body"] or None)
            conn.getresponse().read()
        return conn

    def call(conn, index, c, out):
        body = c["body"].encode()
        headers = dict(c["headers"])
        if not spec["keep_alive"]:
            headers["Connection"] = "close"
        out["begin"] = time.monotonic_ns()
        conn.request("POST", c["path"], body=body, headers=headers)
        out["written"] = time.monotonic_ns()
        out["sent"] = len(body)
        resp = conn.getresponse()
        out["status"], out["request_id"] = resp.status, resp.getheader("x-request-id", "")
        events = Events(out, "event-stream" in resp.getheader("content-type", ""))
        while True:
            data = resp.read1(65536)
            now = time.monotonic_ns()
            if not data:
                break
            events.feed(data, now)
        if resp.length:
            raise http.client.IncompleteRead(b"", resp.length)
        out["end"] = time.monotonic_ns()
        resp.close()
        events.end()
        out["ok"] = True

    def worker(mine):
        conn = None
        for index, c in mine:
            out = results[index] = new_result(index)
            try:
                if conn is None:
                    gate.pass_(index)
                    conn = connect()
                else:
                    gate.pass_(index)
                call(conn, index, c, out)
            except (OSError, http.client.HTTPException) as e:
                out["error"], out["end"] = repr(e), time.monotonic_ns()
                if conn:
                    conn.close()
                conn = None
                continue
            if not spec["keep_alive"]:
                conn.close()
                conn = None
        if conn:
            conn.close()

    threads = [threading.Thread(target=worker, args=(list(enumerate(spec["calls"]))[k::spec["concurrency"]],))
               for k in range(spec["concurrency"])]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return results


async def run_asyncio(spec, totals):
    url = urllib.parse.urlsplit(spec["base_url"])
    gate, results = Gate(spec), {}

    async def connect():
        ctx = ssl.create_default_context(cafile=spec["ca"]) if url.scheme == "https" else None
        conn = await asyncio.open_connection(url.hostname, url.port, ssl=ctx, limit=1 << 20)
        for other in spec["before"]:
            await exchange(conn, other["method"], other["path"], {}, other["body"], new_result(0))
        return conn

    async def exchange(conn, method, path, headers, body, out):
        reader, writer = conn
        body = body.encode()
        head = [f"{method} {path} HTTP/1.1", f"Content-Length: {len(body)}"]
        if "Host" not in headers:
            head.append(f"Host: {url.netloc}")
        head += [f"{k}: {v}" for k, v in headers.items()]
        message = ("\r\n".join(head) + "\r\n\r\n").encode() + body
        out["begin"] = time.monotonic_ns()
        writer.write(message)
        out["written"] = time.monotonic_ns()
        totals.add(len(message), 0)
        await writer.drain()
        out["sent"] = len(body)

        raw = await reader.readuntil(b"\r\n\r\n")
        totals.add(0, len(raw))
        status, *fields = raw.decode("latin-1").split("\r\n")
        header = {k.lower(): v.strip() for k, _, v in (f.partition(":") for f in fields if f)}
        out["status"], out["request_id"] = int(status.split()[1]), header.get("x-request-id", "")
        events = Events(out, "event-stream" in header.get("content-type", ""))
        if header.get("transfer-encoding") == "chunked":
            while True:
                line = await reader.readuntil(b"\r\n")
                data = await reader.readexactly(int(line, 16) + 2)
                now = time.monotonic_ns()
                totals.add(0, len(line) + len(data))
                if len(data) == 2:
                    break
                events.feed(data[:-2], now)
        else:
            left = int(header.get("content-length", 0))
            while left:
                data = await reader.read(min(left, 65536))
                now = time.monotonic_ns()
                if not data:
                    raise ConnectionError(f"{left} bytes of the body are missing")
                totals.add(0, len(data))
                left -= len(data)
                events.feed(data, now)
        out["end"] = time.monotonic_ns()
        events.end()
        out["ok"] = True
        return header.get("connection") == "close"

    async def hang_up(conn):
        conn[1].close()
        try:
            await conn[1].wait_closed()
        except OSError:
            pass

    async def worker(mine):
        conn = None
        for index, c in mine:
            out = results[index] = new_result(index)
            headers = dict(c["headers"])
            if not spec["keep_alive"]:
                headers["Connection"] = "close"
            try:
                gate.pass_(index)
                conn = conn or await connect()
                done = await exchange(conn, "POST", c["path"], headers, c["body"], out)
            except (OSError, asyncio.IncompleteReadError) as e:
                out["error"], out["end"], done = repr(e), time.monotonic_ns(), True
            if conn and (done or not spec["keep_alive"]):
                await hang_up(conn)
                conn = None
        if conn:
            await hang_up(conn)

    calls = list(enumerate(spec["calls"]))
    await asyncio.gather(*(worker(calls[k::spec["concurrency"]]) for k in range(spec["concurrency"])))
    return results


def main():
    kind, path = sys.argv[1:]
    with open(path) as f:
        spec = json.load(f)
    totals = Totals()
    if kind == "http":
        results = run_http(spec, totals)
    else:
        results = asyncio.run(run_asyncio(spec, totals))
    print(json.dumps({
        "calls": [results[i] for i in sorted(results)],
        "total_sent": totals.sent, "total_received": totals.received,
    }))


main()
