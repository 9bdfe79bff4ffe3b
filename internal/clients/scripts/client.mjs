// Makes LLM calls as a plain Node program would, with node:https or node:http, and
// notes what it saw. usage: node client.mjs SPEC
// Prints one JSON object on stdout. Times are process.hrtime.bigint().
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import readline from 'node:readline';

const spec = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const base = new URL(spec.base_url);
const lib = base.protocol === 'https:' ? https : http;
const now = () => Number(process.hrtime.bigint()); // exact below 2^53 ns, 104 days of uptime

function isContent(v) {
  for (const choice of v.choices ?? []) {
    const d = choice.delta ?? {};
    if (d.content || d.reasoning_content || d.refusal || d.tool_calls) return true;
  }
  if (v.type === 'content_block_delta') return Boolean(v.delta.text || v.delta.thinking || v.delta.partial_json);
  return v.type === 'response.output_text.delta' || v.type === 'response.reasoning_summary_text.delta';
}

// Finds the response's id and the moments of its content in a body.
class Events {
  constructor(out, stream) {
    this.out = out;
    this.stream = stream;
    this.rest = Buffer.alloc(0);
    this.whole = [];
  }
  feed(data, at) {
    this.out.received += data.length;
    if (!this.stream) {
      this.whole.push(data);
      return;
    }
    let buf = Buffer.concat([this.rest, data]);
    for (let i; (i = buf.indexOf(10)) >= 0; buf = buf.subarray(i + 1)) {
      const line = buf.subarray(0, i).toString();
      if (line.startsWith('data:')) this.event(line.slice(5), at);
    }
    this.rest = buf;
  }
  end() {
    if (!this.stream) this.event(Buffer.concat(this.whole).toString(), 0);
  }
  event(text, at) {
    let v;
    try {
      v = JSON.parse(text);
    } catch {
      return;
    }
    if (!v || typeof v !== 'object') return;
    this.out.id ||= v.id ?? v.message?.id ?? v.response?.id ?? '';
    if (at && isContent(v)) this.out.contents.push(at);
  }
}

function exchange(agent, method, path, headers, text, out) {
  return new Promise((resolve) => {
    const body = Buffer.from(text);
    const fail = (err) => {
      out.error = String(err);
      out.end = now();
      resolve();
    };
    out.begin = now();
    const req = lib.request(
      { host: base.hostname, port: base.port, servername: '', method, path, agent, headers: { ...headers, 'content-length': body.length } },
      (res) => {
        out.status = res.statusCode;
        out.request_id = res.headers['x-request-id'] ?? '';
        const events = new Events(out, (res.headers['content-type'] ?? '').includes('event-stream'));
        res.on('data', (data) => events.feed(data, now()));
        res.on('error', fail);
        res.on('end', () => {
          out.end = now();
          events.end();
          out.ok = res.complete;
          resolve();
        });
      },
    );
    // On a connection that stands the request is written right after this event.
    req.on('socket', () => {
      if (!req.reusedSocket) return;
      out.begin = now();
      setImmediate(() => { out.written = now(); });
    });
    req.on('error', fail);
    req.end(body, () => {
      out.sent = body.length;
      out.written ||= now();
    });
  });
}

let opened = !spec.wait;
let opening;
function gate(index) {
  if (opened || index < spec.wait_after) return undefined;
  opening ??= new Promise((resolve) => {
    console.log(JSON.stringify({ waiting: true }));
    const lines = readline.createInterface({ input: process.stdin });
    lines.once('line', () => {
      opened = true;
      lines.close();
      resolve();
    });
  });
  return opening;
}

const results = [];
function newResult(index) {
  return { index, id: '', request_id: '', status: 0, ok: false, error: '', sent: 0, received: 0, begin: 0, written: 0, contents: [], end: 0 };
}

async function worker(k) {
  const options = { keepAlive: spec.keep_alive, maxSockets: 1 };
  if (base.protocol === 'https:') options.ca = fs.readFileSync(spec.ca);
  let agent = null;
  for (let i = k; i < spec.calls.length; i += spec.concurrency) {
    await gate(i);
    if (!agent) {
      agent = new lib.Agent(options);
      for (const o of spec.before) await exchange(agent, o.method, o.path, {}, o.body, newResult(0));
    }
    const call = spec.calls[i];
    results[i] = newResult(i);
    await exchange(agent, 'POST', call.path, call.headers, call.body, results[i]);
    if (!spec.keep_alive) {
      agent.destroy();
      agent = null;
    }
  }
  agent?.destroy();
}

await Promise.all(Array.from({ length: spec.concurrency }, (_, k) => worker(k)));
process.stdin.destroy();
console.log(JSON.stringify({ calls: results }));
