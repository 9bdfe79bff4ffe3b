// Streams one answer: client.mjs BASE_URL. What it read is printed.
import https from 'node:https';
const body = JSON.stringify({
  model: 'gpt-4o-mini', stream: true, stream_options: { include_usage: true }, messages: [{ role: 'user', content: 'hi' }],
});
const req = https.request(process.argv[2] + '/v1/chat/completions', {
  method: 'POST', headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
}, (res) => res.pipe(process.stdout));
req.end(body);
