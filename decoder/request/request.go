// Package request reads the body of a request to a model, whichever vendor's: a
// body can be read only once, and which vendor it is for depends on its shape. It
// is read as it passes; of the prompt a bounded sample is kept, or nothing.
package request

import (
	"errors"
	"io"
	"mime"
	"unicode/utf8"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
)

const (
	// keptPrompt is how much of the prompt's text is kept, in bytes: enough to learn how
	// many bytes of it make a token.
	keptPrompt = 1 << 10

	maxKeys     = 64
	maxMetadata = 16
)

// Reader reads bodies, one after the other or several at a time. The zero value is ready.
type Reader struct {
	NoSample bool // nothing of a prompt is kept, for nobody estimates its tokens
	scan     jsonscan.Pool
}

// Read reads a body of the given content type from r into f: a JSON object, or a
// multipart form. Any other body leaves f.Known false and is no error. What was
// read stands when r fails in the middle; its error is returned unchanged.
func (d *Reader) Read(r io.Reader, contentType string, f *exchange.Facts) error {
	media, params, _ := mime.ParseMediaType(contentType)
	b := body{f: f, noSample: d.NoSample}
	if media == "multipart/form-data" && params["boundary"] != "" {
		return b.form(r, params["boundary"])
	}
	b.s = d.scan.Get(r)
	defer d.scan.Put(b.s)
	if b.s.Kind() != jsonscan.Object {
		var bad *jsonscan.SyntaxError
		if err := b.s.Err(); err != nil && !errors.As(err, &bad) {
			return err
		}
		return nil
	}
	f.Known = true
	b.object()
	f.Bytes = b.s.Offset()
	err := b.s.End()
	f.Whole = err == nil
	return err
}

type body struct {
	s *jsonscan.Scanner
	f *exchange.Facts
	// noSample is the Reader's.
	noSample bool
	// modelSet: the key "model" was seen, which goes before its other names.
	modelSet bool
}

// key notes a top-level key.
func (b *body) key(name []byte) {
	if b.f.Keys == nil {
		b.f.Keys = make(map[string]bool, 16)
	}
	if len(b.f.Keys) < maxKeys {
		b.f.Keys[string(name)] = true
	}
}

func (b *body) object() {
	s, f := b.s, b.f
	for key := range s.Object {
		b.key(key)
		switch string(key) {
		case "model":
			b.modelSet = s.Into(&f.Model) || b.modelSet
		case "modelId", "model_id", "modelName", "deployment", "engine":
			if b.modelSet {
				break
			}
			s.Into(&f.Model)
		case "stream":
			if v, ok := s.Bool(); ok {
				f.Stream, f.StreamSet = v, true
			}
		case "stream_options":
			for key := range s.Object {
				if string(key) == "include_usage" {
					f.IncludeUsage, _ = s.Bool()
				}
			}
		case "anthropic_version":
			s.Into(&f.AnthropicVersion)
		case "service_tier", "serviceTier":
			s.Into(&f.ServiceTier)
		case "metadata":
			b.metadata()
		case "response_format", "output_format":
			b.format()
		case "text", "output_config":
			b.textOptions()
		case "generationConfig", "generation_config":
			b.generation()
		case "request": // Cloud Code Assist wraps a Gemini request
			for key := range s.Object {
				switch string(key) {
				case "contents", "systemInstruction":
					b.text(false)
				case "generationConfig":
					b.generation()
				}
			}
		case "format": // Ollama: "json" or a schema; an audio format elsewhere
			switch s.Kind() {
			case jsonscan.Object:
				f.JSONSchema = true
			case jsonscan.String:
				if text, _, _ := s.Text(8); text == "json" {
					f.JSONSchema = true
				}
			}
		case "guided_json", "json_schema":
			if k := s.Kind(); k == jsonscan.Object || k == jsonscan.String {
				f.JSONSchema = true
			}
		case "tools", "functions":
			b.tools()
		case "web_search_options":
			for key := range s.Object {
				if string(key) == "search_context_size" {
					s.Into(&f.SearchContext)
				}
			}
		case "size":
			s.Into(&f.ImageSize)
		case "quality":
			s.Into(&f.ImageQuality)
		case "n":
			if n, ok := s.Int(); ok && n > 0 && n <= 1000 {
				f.ImageCount = int(n)
			}
		case "jsonrpc":
			s.Skip()
		case "method":
			s.Into(&f.JSONRPCMethod)
		case "params":
			for key := range s.Object {
				if string(key) == "name" {
					s.Into(&f.JSONRPCTool)
				}
			}
		case "id":
			if s.Kind() == jsonscan.Number {
				f.JSONRPCID, _ = s.Decimal()
			} else {
				s.Into(&f.JSONRPCID)
			}
		case "messages", "input", "prompt", "system", "instructions", "contents", "systemInstruction",
			"system_instruction", "inputs", "inputText", "message", "chat_history", "preamble", "query",
			"documents", "texts", "content", "instances", "requests", "suffix", "text_input":
			b.text(true)
		}
	}
}

func (b *body) metadata() {
	for key := range b.s.Object {
		if len(b.f.Metadata) == maxMetadata || b.s.Kind() != jsonscan.String {
			continue
		}
		name := string(key)
		value := ""
		if b.s.Into(&value) {
			if b.f.Metadata == nil {
				b.f.Metadata = make(map[string]string)
			}
			b.f.Metadata[name] = value
		}
	}
}

// format reads {"type":"json_schema"|"json_object"|"text"}.
func (b *body) format() {
	for key := range b.s.Object {
		if string(key) != "type" {
			continue
		}
		switch text, _, _ := b.s.Text(16); text {
		case "json_schema", "json_object", "json":
			b.f.JSONSchema = true
		}
	}
}

// textOptions reads the Responses API's text.format, Anthropic's output_config.format;
// elsewhere "text" is the prompt.
func (b *body) textOptions() {
	if k := b.s.Kind(); k == jsonscan.String || k == jsonscan.Array {
		b.text(true)
		return
	}
	for key := range b.s.Object {
		if string(key) == "format" {
			b.format()
		}
	}
}

// generation reads Gemini's generationConfig.
func (b *body) generation() {
	for key := range b.s.Object {
		switch string(key) {
		case "responseSchema", "response_schema", "responseJsonSchema", "response_json_schema":
			b.f.JSONSchema = b.f.JSONSchema || b.s.Kind() == jsonscan.Object
		case "responseMimeType", "response_mime_type":
			if text, _, _ := b.s.Text(32); text == "application/json" {
				b.f.JSONSchema = true
			}
		}
	}
}

// tools reads the definitions, of which the model reads every word, and the search
// tool's context size.
func (b *body) tools() {
	for range b.s.Array {
		for key := range b.s.Object {
			if string(key) == "search_context_size" {
				b.s.Into(&b.f.SearchContext)
			} else {
				b.words()
			}
		}
	}
}

// words takes all keys and strings of a value for text.
func (b *body) words() {
	s := b.s
	switch s.Kind() {
	case jsonscan.String:
		s.Stream(b.sample)
	case jsonscan.Array:
		for range s.Array {
			b.words()
		}
	case jsonscan.Object:
		for key := range s.Object {
			b.sample(key)
			b.sample([]byte(": "))
			b.words()
		}
	}
	b.sample([]byte(" "))
}

// text walks over the prompt. Strings are its text where the last key says so, or
// an array of such a key; the rest (roles, types, ids, pictures) is not.
func (b *body) text(is bool) {
	s := b.s
	switch s.Kind() {
	case jsonscan.String:
		if is {
			s.Stream(b.sample)
		}
	case jsonscan.Array:
		for range s.Array {
			b.text(is)
		}
	case jsonscan.Object:
		for key := range s.Object {
			switch string(key) {
			case "text", "content", "parts", "input", "output", "arguments", "prompt", "query", "message",
				"inputText", "description", "contents", "title", "body", "snippet", "thinking", "user", "system":
				b.text(true)
			case "image_url", "source", "inlineData", "inline_data", "input_audio", "file", "bytes", "data":
				s.Skip()
			default:
				b.text(false)
			}
		}
	}
}

// sample counts text and keeps the first of it, if it may.
func (b *body) sample(piece []byte) {
	t := &b.f.Text
	t.Bytes += int64(len(piece))
	for _, c := range piece {
		if utf8.RuneStart(c) {
			t.Chars++
		}
	}
	if room := keptPrompt - len(t.Kept); room > 0 && !b.noSample {
		t.Kept = append(t.Kept, piece[:min(room, len(piece))]...)
	}
}
