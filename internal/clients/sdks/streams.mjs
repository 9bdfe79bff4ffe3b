// Each vendor's own SDK, unmodified, streams one answer from a server. usage:
// node streams.mjs BASE_URL [NAME...]; the CA comes by NODE_EXTRA_CA_CERTS. Prints one JSON
// object a line: {name, text, input, output, error}; input and output are the
// totals of tokens that the SDK reports, absent where it reports none.
import { createOpenAI } from '@ai-sdk/openai';
import Anthropic from '@anthropic-ai/sdk';
import { BedrockRuntimeClient, ConverseStreamCommand, InvokeModelWithResponseStreamCommand } from '@aws-sdk/client-bedrock-runtime';
import { GoogleGenAI } from '@google/genai';
import { ChatOpenAI } from '@langchain/openai';
import { Mistral } from '@mistralai/mistralai';
import { streamText } from 'ai';
import { CohereClient, CohereClientV2 } from 'cohere-ai';
import Groq from 'groq-sdk';
import { Ollama } from 'ollama';
import OpenAI, { toFile } from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';
import { ResponsesWS } from 'openai/resources/responses/ws';

const base = process.argv[2];
const messages = [{ role: 'user', content: 'hi' }];
const openai = new OpenAI({ apiKey: 'k', baseURL: base + '/v1' });
const aws = new BedrockRuntimeClient({
  region: 'us-east-1', endpoint: base, credentials: { accessKeyId: 'a', secretAccessKey: 'b' },
});

const streams = {
  async 'openai chat'() {
    let text = '', usage;
    const stream = await openai.chat.completions.create({
      model: 'gpt-4o', stream: true, stream_options: { include_usage: true }, messages,
    });
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? '';
      usage = chunk.usage ?? usage;
    }
    return { text, input: usage.prompt_tokens, output: usage.completion_tokens };
  },
  async 'openai responses'() {
    let text = '', usage;
    for await (const event of await openai.responses.create({ model: 'gpt-5', stream: true, input: 'hi' })) {
      if (event.type === 'response.output_text.delta') text += event.delta;
      if (event.type === 'response.completed') usage = event.response.usage;
    }
    return { text, input: usage.input_tokens, output: usage.output_tokens };
  },
  async 'openai completions'() {
    let text = '';
    for await (const chunk of await openai.completions.create({ model: 'davinci-002', stream: true, prompt: 'hi' })) {
      text += chunk.choices[0]?.text ?? '';
    }
    return { text };
  },
  async 'openai embeddings'() {
    const r = await openai.embeddings.create({ model: 'text-embedding-3-small', input: ['a', 'b', 'c'] });
    if (r.data.length !== 3 || r.data[0].embedding.length !== 16) throw new Error('vectors are missing');
    return { input: r.usage.prompt_tokens };
  },
  async 'openai transcription'() {
    const file = await toFile(Buffer.alloc(30000, 7), 'speech.wav');
    const r = await openai.audio.transcriptions.create({ model: 'gpt-4o-transcribe', file });
    return { text: r.text, input: r.usage.input_tokens, output: r.usage.output_tokens };
  },
  async 'openai realtime'() {
    let text = '';
    const rt = new OpenAIRealtimeWS({ model: 'gpt-realtime' }, openai);
    const usage = await new Promise((resolve, reject) => {
      rt.socket.on('error', reject);
      rt.on('error', reject);
      rt.on('session.created', () => rt.send({ type: 'response.create' }));
      rt.on('response.output_text.delta', (event) => { text += event.delta; });
      rt.on('response.done', (event) => resolve(event.response.usage));
    });
    rt.close();
    return { text, input: usage.input_tokens, output: usage.output_tokens };
  },
  async 'openai realtime with sound'() {
    let text = '', sound = 0;
    const rt = new OpenAIRealtimeWS({ model: 'gpt-realtime' }, openai);
    const usage = await new Promise((resolve, reject) => {
      rt.socket.on('error', reject);
      rt.on('error', reject);
      rt.on('session.created', () => rt.send({ type: 'session.update', session: {
        type: 'realtime', output_modalities: ['audio'], audio: { input: { transcription: { model: 'whisper-1' } } },
      } }));
      rt.on('session.updated', () => {
        for (let i = 0; i < 20; i++) rt.send({ type: 'input_audio_buffer.append', audio: Buffer.alloc(4800, i).toString('base64') });
        rt.send({ type: 'input_audio_buffer.commit' });
        rt.send({ type: 'response.create' });
      });
      rt.on('response.output_audio_transcript.delta', (event) => { text += event.delta; });
      rt.on('response.output_audio.delta', (event) => { sound += event.delta.length; });
      rt.on('response.done', (event) => resolve(event.response.usage));
    });
    rt.close();
    if (sound === 0) throw new Error('no sound');
    return { text, input: usage.input_tokens, output: usage.output_token_details.audio_tokens };
  },
  async 'openai responses on a socket'() {
    let text = '', usage;
    const ws = new ResponsesWS(openai);
    await new Promise((resolve, reject) => {
      let left = 2;
      const ask = () => ws.send({ type: 'response.create', model: 'gpt-5', input: 'hi' });
      ws.socket.on('error', reject);
      ws.on('error', reject);
      ws.socket.on('open', ask);
      ws.on('response.output_text.delta', (event) => { text += event.delta; });
      ws.on('response.completed', (event) => {
        usage = event.response.usage;
        if (--left === 0) return resolve();
        text = '';
        ask();
      });
    });
    ws.close();
    return { text, input: usage.input_tokens, output: usage.output_tokens };
  },
  async 'openai background'() {
    let r = await openai.responses.create({ model: 'gpt-5', background: true, input: 'hi' });
    while (r.status === 'queued' || r.status === 'in_progress') r = await openai.responses.retrieve(r.id);
    return { text: r.output_text, input: r.usage.input_tokens, output: r.usage.output_tokens };
  },
  async 'openai image edit'() {
    const image = await toFile(Buffer.alloc(200000, 7), 'cat.png', { type: 'image/png' });
    const r = await openai.images.edit({ model: 'gpt-image-1', image, prompt: 'a hat' });
    return { input: r.usage.input_tokens, output: r.usage.output_tokens };
  },
  async 'openai speech'() {
    const r = await openai.audio.speech.create({ model: 'tts-1', voice: 'alloy', input: 'naïve café' });
    if ((await r.arrayBuffer()).byteLength < 1000) throw new Error('no sound');
    return {};
  },
  async 'anthropic messages'() {
    let text = '';
    const stream = new Anthropic({ apiKey: 'k', baseURL: base }).messages.stream({
      model: 'claude-sonnet-4-5', max_tokens: 99, messages,
    });
    stream.on('text', (t) => { text += t; });
    const { usage } = await stream.finalMessage();
    const input = usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens;
    return { text, input, output: usage.output_tokens };
  },
  async 'google genai'() {
    let text = '', usage;
    const client = new GoogleGenAI({ apiKey: 'k', httpOptions: { baseUrl: base } });
    for await (const chunk of await client.models.generateContentStream({ model: 'gemini-2.5-flash', contents: 'hi' })) {
      text += chunk.text ?? '';
      usage = chunk.usageMetadata ?? usage;
    }
    return { text, input: usage.promptTokenCount, output: usage.candidatesTokenCount };
  },
  async 'google genai live'() {
    let text = '';
    const client = new GoogleGenAI({ apiKey: 'k', httpOptions: { baseUrl: base.replace('https:', 'wss:') } });
    let done, failed;
    const turn = new Promise((resolve, reject) => { done = resolve; failed = reject; });
    const session = await client.live.connect({
      model: 'gemini-live-2.5-flash',
      callbacks: {
        onmessage: (m) => {
          for (const part of m.serverContent?.modelTurn?.parts ?? []) text += part.text ?? '';
          if (m.usageMetadata) done(m.usageMetadata);
        },
        onerror: failed,
      },
    });
    session.sendClientContent({ turns: 'hi', turnComplete: true });
    const usage = await turn;
    session.close();
    return { text, input: usage.promptTokenCount, output: usage.responseTokenCount };
  },
  async 'google interactions'() {
    let text = '', usage;
    const client = new GoogleGenAI({ apiKey: 'k', httpOptions: { baseUrl: base } });
    for await (const event of await client.interactions.create({ model: 'gemini-3-pro', input: 'hi', stream: true })) {
      if (event.event_type === 'step.delta') text += event.delta.text ?? '';
      if (event.event_type === 'interaction.completed') usage = event.interaction.usage;
    }
    return { text, input: usage.total_input_tokens, output: usage.total_output_tokens };
  },
  async 'bedrock converse'() {
    let text = '', usage;
    const r = await aws.send(new ConverseStreamCommand({
      modelId: 'us.amazon.nova-lite-v1:0', messages: [{ role: 'user', content: [{ text: 'hi' }] }],
    }));
    for await (const event of r.stream) {
      text += event.contentBlockDelta?.delta?.text ?? '';
      usage = event.metadata?.usage ?? usage;
    }
    const input = usage.inputTokens + usage.cacheReadInputTokens + usage.cacheWriteInputTokens;
    return { text, input, output: usage.outputTokens };
  },
  async 'bedrock invoke'() {
    let text = '', output;
    const r = await aws.send(new InvokeModelWithResponseStreamCommand({
      modelId: 'us.anthropic.claude-haiku-4-5-20251001-v1:0', contentType: 'application/json',
      body: JSON.stringify({ anthropic_version: 'bedrock-2023-05-31', max_tokens: 9, messages }),
    }));
    for await (const event of r.body) {
      const v = JSON.parse(Buffer.from(event.chunk.bytes).toString());
      text += v.delta?.text ?? '';
      if (v.type === 'message_delta') output = v.usage.output_tokens;
    }
    return { text, output };
  },
  async 'bedrock invoke llama'() {
    let text = '', last;
    const r = await aws.send(new InvokeModelWithResponseStreamCommand({
      modelId: 'meta.llama3-70b-instruct-v1:0', contentType: 'application/json', body: JSON.stringify({ prompt: 'hi' }),
    }));
    for await (const event of r.body) {
      last = JSON.parse(Buffer.from(event.chunk.bytes).toString());
      text += last.generation;
    }
    return { text, input: last.prompt_token_count, output: last.generation_token_count };
  },
  async 'cohere chat 1'() {
    let text = '', usage;
    const client = new CohereClient({ token: 'k', environment: base });
    for await (const event of await client.chatStream({ model: 'command-r', message: 'hi' })) {
      if (event.eventType === 'text-generation') text += event.text;
      if (event.eventType === 'stream-end') usage = event.response.meta.billedUnits;
    }
    return { text, input: usage.inputTokens, output: usage.outputTokens };
  },
  async 'cohere rerank'() {
    await new CohereClientV2({ token: 'k', environment: base }).rerank({ model: 'rerank-v3.5', query: 'q', documents: ['a', 'b'] });
    return {};
  },
  async 'cohere chat'() {
    let text = '', usage;
    const client = new CohereClientV2({ token: 'k', environment: base, baseUrl: base });
    for await (const event of await client.chatStream({ model: 'command-a-03-2025', messages })) {
      if (event.type === 'content-delta') text += event.delta.message.content.text;
      if (event.type === 'message-end') usage = event.delta.usage.billedUnits;
    }
    return { text, input: usage.inputTokens, output: usage.outputTokens };
  },
  async 'ollama chat'() {
    let text = '', last;
    for await (const chunk of await new Ollama({ host: base }).chat({ model: 'llama3', messages, stream: true })) {
      text += chunk.message.content;
      last = chunk;
    }
    return { text, input: last.prompt_eval_count, output: last.eval_count };
  },
  async 'mistral chat'() {
    let text = '';
    for await (const event of await new Mistral({ apiKey: 'k', serverURL: base }).chat.stream({ model: 'mistral-small', messages })) {
      text += event.data.choices[0]?.delta?.content ?? '';
    }
    return { text };
  },
  async 'groq chat'() {
    let text = '';
    const groq = new Groq({ apiKey: 'k', baseURL: base });
    for await (const chunk of await groq.chat.completions.create({ model: 'llama-3.3-70b-versatile', stream: true, messages })) {
      text += chunk.choices[0]?.delta?.content ?? '';
    }
    return { text };
  },
  async 'vercel ai'() {
    let text = '';
    const r = streamText({ model: createOpenAI({ baseURL: base + '/v1', apiKey: 'k' }).chat('gpt-4o'), prompt: 'hi' });
    for await (const t of r.textStream) text += t;
    const usage = await r.usage;
    return { text, input: usage.inputTokens, output: usage.outputTokens };
  },
  async 'langchain openai'() {
    let text = '', usage;
    const model = new ChatOpenAI({ model: 'gpt-4o', apiKey: 'k', configuration: { baseURL: base + '/v1' } });
    for await (const chunk of await model.stream('hi')) {
      text += chunk.content;
      usage = chunk.usage_metadata ?? usage;
    }
    return { text, input: usage.input_tokens, output: usage.output_tokens };
  },
};

const only = process.argv.slice(3);
for (const [name, run] of Object.entries(streams)) {
  if (only.length && !only.includes(name)) continue;
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error('no end after 20 s')), 20000).unref());
  try {
    console.log(JSON.stringify({ name, ...(await Promise.race([run(), late])) }));
  } catch (err) {
    console.log(JSON.stringify({ name, error: `${err.message ?? err.type} ${err.cause ?? ''}` }));
  }
}
process.exit(0);
