package sim

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"time"

	"github.com/tollwire/tollwire/llm"
)

// openaiCompletions is POST /v1/completions, the legacy API.
var openaiCompletions = &vendor{
	provider: "openai", operation: "text_completion",
	respond: func(c *call) (*answer, error) {
		e := c.entry
		e.ID, e.Served = "cmpl-"+c.tag, served(&c.plan, c.ask.Model)
		wire, usage := c.openaiUsage(c.plan.Tokens, c.plan.Think)
		e.Generated = classes(&usage)
		base := func(choices []any) object {
			return object{"id": e.ID, "object": "text_completion", "created": time.Now().Unix(), "model": e.Served, "choices": choices}
		}
		choice := func(text string, finish any) []any {
			return []any{object{"text": text, "index": 0, "logprobs": nil, "finish_reason": finish}}
		}
		stated := object{"prompt_tokens": wire.Prompt, "completion_tokens": wire.Completion, "total_tokens": wire.Total,
			"prompt_tokens_details": wire.PromptIn, "completion_tokens_details": wire.CompletionIn}
		finish := openaiFinish(c.plan.Finish)
		a := &answer{header: openaiHeader(c)}
		if !c.ask.Stream {
			o := base(choice(gather(speak(&c.plan, c.seed)), finish))
			o["usage"] = stated
			a.unary, a.visible, a.usage, a.finish = indented(o), true, usage, []string{finish}
			return a, nil
		}
		states := c.ask.StreamOptions.IncludeUsage && c.plan.Usage != "off"
		a.events = func(yield func(event) bool) {
			for w := range speak(&c.plan, c.seed) {
				if !yield(event{data: compact(base(choice(w.text, nil))), content: true, tokens: max(1, w.tokens)}) {
					return
				}
			}
			if !yield(event{data: compact(base(choice("", finish))), finish: finish}) {
				return
			}
			if states {
				o := base([]any{})
				o["usage"] = stated
				if !yield(event{data: compact(o), usage: &usage, final: true}) {
					return
				}
			}
			yield(event{data: []byte("[DONE]")})
		}
		return a, nil
	},
	refusal: openaiRefusal,
	broken:  openaiBroken,
}

// openaiEmbeddings is POST /v1/embeddings: vectors of 16 numbers, an answer
// without an id.
var openaiEmbeddings = &vendor{
	provider: "openai", operation: "embeddings",
	respond: func(c *call) (*answer, error) {
		var ask struct {
			Input    json.RawMessage `json:"input"`
			Encoding string          `json:"encoding_format"`
		}
		if err := json.Unmarshal(c.body, &ask); err != nil {
			return nil, err
		}
		n := 1
		var list []json.RawMessage
		if json.Unmarshal(ask.Input, &list) == nil {
			n = len(list)
		}
		if n < 1 || n > 2048 {
			return nil, fmt.Errorf("'input' has %d elements, want 1 to 2048", n)
		}
		c.entry.Served = served(&c.plan, c.ask.Model)
		rnd := rand.New(rand.NewPCG(c.seed, 0x656d62))
		data := make([]any, n)
		for i := range data {
			v := make([]float32, 16)
			for j := range v {
				v[j] = rnd.Float32() - 0.5
			}
			var vector any = v
			if ask.Encoding == "base64" {
				var b []byte
				for _, f := range v {
					b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
				}
				vector = base64.StdEncoding.EncodeToString(b)
			}
			data[i] = object{"object": "embedding", "index": i, "embedding": vector}
		}
		var u llm.Usage
		u.Set(llm.Input, float64(c.plan.Input))
		c.entry.Generated = classes(&u)
		return &answer{header: openaiHeader(c), usage: u, unary: indented(object{
			"object": "list", "data": data, "model": c.entry.Served,
			"usage": object{"prompt_tokens": c.plan.Input, "total_tokens": c.plan.Input},
		})}, nil
	},
	refusal: openaiRefusal,
	broken:  openaiBroken,
}

// openaiTranscriptions is POST /v1/audio/transcriptions, a multipart form. Models
// named whisper state seconds, others tokens; response_format text states nothing.
var openaiTranscriptions = &vendor{
	provider: "openai", operation: "transcription",
	prepare: func(c *call) {
		f, err := readForm(c)
		if err == nil {
			c.ask.Model, c.ask.Stream, c.ask.Format = f["model"], f["stream"] == "true", f["response_format"]
		}
	},
	respond: func(c *call) (*answer, error) {
		f, err := readForm(c)
		if err != nil {
			return nil, err
		}
		if _, ok := f["file"]; !ok {
			return nil, fmt.Errorf("the form has no file")
		}
		said := gather(speak(&c.plan, c.seed))
		a := &answer{header: openaiHeader(c), visible: true}
		usage, u := transcriptionUsage(c)
		c.entry.Generated = classes(&u)
		switch {
		case c.ask.Format == "text" || c.ask.Format == "srt" || c.ask.Format == "vtt":
			a.header.Set("Content-Type", "text/plain; charset=utf-8")
			a.unary, a.noUsage = []byte(said+"\n"), true
		case c.ask.Stream:
			a.events = func(yield func(event) bool) {
				for w := range speak(&c.plan, c.seed) {
					data := compact(object{"type": "transcript.text.delta", "delta": w.text})
					if !yield(event{data: data, content: true, tokens: max(1, w.tokens)}) {
						return
					}
				}
				data := compact(object{"type": "transcript.text.done", "text": said, "usage": usage})
				if yield(event{data: data, usage: &u, final: true}) {
					yield(event{data: []byte("[DONE]")})
				}
			}
		default:
			a.unary, a.usage = compact(object{"text": said, "usage": usage}), u
		}
		return a, nil
	},
	refusal: openaiRefusal,
	broken:  openaiBroken,
}

func transcriptionUsage(c *call) (object, llm.Usage) {
	var u llm.Usage
	if c.ask.Model == "whisper-1" {
		u.Set(llm.Seconds, float64(c.plan.Input))
		return object{"type": "duration", "seconds": c.plan.Input}, u
	}
	u.Set(llm.InputAudio, float64(c.plan.Input))
	u.Set(llm.Output, float64(c.plan.Tokens))
	return object{
		"type": "tokens", "input_tokens": c.plan.Input, "output_tokens": c.plan.Tokens, "total_tokens": c.plan.Input + c.plan.Tokens,
		"input_token_details": object{"audio_tokens": c.plan.Input, "text_tokens": 0},
	}, u
}

// readForm returns the fields of a multipart form; of files only their names.
func readForm(c *call) (map[string]string, error) {
	kind, p, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		return nil, fmt.Errorf("the body is %q, want multipart/form-data", c.r.Header.Get("Content-Type"))
	}
	f := make(map[string]string)
	r := multipart.NewReader(bytes.NewReader(c.body), p["boundary"])
	for {
		part, err := r.NextPart()
		if err == io.EOF {
			return f, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the form: %w", err)
		}
		if part.FileName() != "" {
			f[part.FormName()] = part.FileName()
			continue
		}
		v, err := io.ReadAll(io.LimitReader(part, 64<<10))
		if err != nil {
			return nil, fmt.Errorf("read the form: %w", err)
		}
		f[part.FormName()] = string(v)
	}
}
