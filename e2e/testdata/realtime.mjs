// Asks OpenAI's Realtime API, which is on this machine, a number of questions of some
// length on one WebSocket, once it is told to.
import dns from 'node:dns'

const [url, questions, bytes] = process.argv.slice(2)
const { lookup } = dns
dns.lookup = (host, ...rest) => lookup('127.0.0.1', ...rest)
process.stdout.write('ready\n')
await new Promise((told) => process.stdin.once('data', told))
const socket = new WebSocket(url)
let asked = 0
const ask = () => {
  if (asked++ == questions) return socket.close()
  const content = [{ type: 'input_text', text: 'why '.repeat(bytes / 4) }]
  socket.send(JSON.stringify({ type: 'conversation.item.create', item: { type: 'message', role: 'user', content } }))
  socket.send(JSON.stringify({ type: 'response.create' }))
}
socket.onopen = ask
socket.onmessage = ({ data }) => {
  if (JSON.parse(data).type == 'response.done') ask()
}
socket.onerror = (e) => {
  console.error(e.message ?? e.type)
  process.exitCode = 1
}
socket.onclose = () => process.exit()
