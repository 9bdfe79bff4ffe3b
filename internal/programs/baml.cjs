// One streamed call by BAML's runtime, an LLM client in Rust that node loads.
const [library, url, bytes] = process.argv.slice(2)
const { BamlRuntime } = require(library)
const source = `
client<llm> Sim {
  provider openai
  options {
    model "gpt-4o-mini"
    base_url "${url}/v1"
    api_key "sk-test"
  }
}
function Ask(text: string) -> string {
  client Sim
  prompt #"{{ text }}"#
}`
const runtime = BamlRuntime.fromFiles('.', { 'main.baml': source }, {})
const prompt = 'How long is a piece of string? '.repeat(Math.ceil(bytes / 31))
const context = runtime.createContextManager()
const stream = runtime.streamFunction('Ask', { text: prompt }, () => {}, context, null, null, [], {}, {})
stream.done(context).then((result) => {
  console.log(result.isOk())
  process.exit(result.isOk() ? 0 : 1)
}, (error) => {
  console.error(error)
  process.exit(1)
})
