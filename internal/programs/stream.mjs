// One streamed call of a program that runs JavaScript and has fetch: Bun, Deno.
const [url, bytes] = process.argv.slice(2)
const prompt = 'How long is a piece of string? '.repeat(Math.ceil(bytes / 31))
const response = await fetch(url + '/v1/chat/completions', {
  method: 'POST',
  headers: { 'content-type': 'application/json', authorization: 'Bearer sk-test' },
  body: JSON.stringify({
    model: 'gpt-4o-mini',
    stream: true,
    stream_options: { include_usage: true },
    messages: [{ role: 'user', content: prompt }],
  }),
})
console.log(response.status, (await response.text()).length)
process.exit(response.ok ? 0 : 1)
