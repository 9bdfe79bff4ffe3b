// Package openai decodes the formats of OpenAI's API, whoever speaks them: chat and
// text completions, Responses, embeddings, images, audio, Assistants runs. What
// differs between hosts is a row of a table, or a field that only some of them send.
package openai

import (
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/tollwire/tollwire/decoder/answer"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/hosts"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/names"
	"github.com/tollwire/tollwire/decoder/stated"
	"github.com/tollwire/tollwire/llm"
)

// Vendor recognises and decodes calls in OpenAI's formats.
type Vendor struct {
	cfg  content.Config
	scan jsonscan.Pool
}

// New returns the vendor.
func New(cfg content.Config) *Vendor { return &Vendor{cfg: cfg} }

// Name implements exchange.Vendor.
func (*Vendor) Name() string { return "openai" }

// api is one of the formats.
type api uint8

const (
	none api = iota
	chat
	completions
	responses
	embeddings
	images
	speech
	transcription
	runs
	realtime
	batches
	conversations // Mistral's
	ocr
	scores
)

// operations are the values of gen_ai.operation.name. The conventions have no word
// for sound; an image is generated content.
var operations = [...]string{
	chat: "chat", completions: "text_completion", responses: "chat", embeddings: "embeddings",
	images: "generate_content", speech: "speech", transcription: "transcription", runs: "invoke_agent",
	realtime: "chat", batches: "chat", conversations: "chat", ocr: "ocr", scores: "rerank",
}

// endpoint is the end of a path that names an API. needs is a key without which a
// body of such a path is no call, for paths that other services may use as well.
type endpoint struct {
	suffix string
	api    api
	plain  bool // a path that nobody else uses
	needs  []string
}

var endpoints = []endpoint{
	{"/chat/completions", chat, true, nil},
	{"/agents/completions", chat, false, []string{"messages"}}, // Mistral
	{"/text/chatcompletion_v2", chat, true, nil},               // MiniMax
	{"/fim/completions", completions, true, nil},               // Mistral
	{"/completions", completions, false, []string{"prompt"}},
	{"/responses", responses, false, []string{"input", "previous_response_id", "prompt", "conversation"}},
	{"/responses/compact", responses, false, []string{"input", "previous_response_id"}},
	{"/embeddings", embeddings, false, []string{"input"}},
	{"/pooling", embeddings, false, []string{"input", "messages"}}, // vLLM
	{"/score", scores, false, []string{"text_1", "queries"}},       // vLLM
	{"/conversations", conversations, false, []string{"inputs"}},   // Mistral
	{"/ocr", ocr, false, []string{"document"}},                     // Mistral
	{"/images/generations", images, false, []string{"prompt"}},
	{"/images/edits", images, false, []string{"prompt", "image"}},
	{"/images/variations", images, false, []string{"image"}},
	{"/audio/speech", speech, false, []string{"input"}},
	{"/audio/transcriptions", transcription, false, []string{"file", "model"}},
	{"/audio/translations", transcription, false, []string{"file", "model"}},
	{"/submit_tool_outputs", runs, false, []string{"tool_outputs"}},
	{"/threads/runs", runs, false, []string{"assistant_id"}},
	{"/runs", runs, false, []string{"assistant_id"}},
}

// find returns the endpoint of a path; nil when it is none.
func find(path string, h *hosts.Host) *endpoint {
	path = strings.TrimRight(path, "/")
	if h != nil && h.Chat != "" && path == h.Chat {
		return &endpoints[0]
	}
	if before, _, ok := strings.Cut(path, "/conversations/"); ok && h != nil && h.Provider == "mistral_ai" {
		path = before + "/conversations" // one that goes on
	}
	for i := range endpoints {
		e := &endpoints[i]
		if strings.HasSuffix(path, e.suffix) && (e.api != runs || strings.Contains(path, "/threads/")) {
			return e
		}
	}
	return nil
}

// Recognize implements exchange.Vendor.
func (*Vendor) Recognize(req *exchange.Request, f *exchange.Facts) exchange.Confidence {
	h := hosts.Lookup(req.Host, req.Path)
	if upgraded(req) != none {
		if h != nil {
			return exchange.Sure
		}
		return exchange.Path
	}
	if fetched(req, h) != none {
		return exchange.Sure
	}
	if req.Method != "POST" {
		return exchange.No
	}
	e := find(req.Path, h)
	switch {
	case e == nil && !f.Known:
		if h != nil {
			return exchange.No // its other paths are known not to be calls
		}
		return exchange.Maybe
	case e == nil:
		// A gateway's own path. Anthropic's and Ollama's bodies look much the same, so
		// their vendors go first where the path says so.
		if h == nil && f.Model != "" && f.Keys["messages"] && !f.Keys["anthropic_version"] {
			return exchange.Weak
		}
		return exchange.No
	case h != nil:
		return exchange.Sure
	case e.plain:
		return exchange.Path
	case !f.Known:
		return exchange.Maybe
	}
	for _, key := range e.needs {
		if f.Keys[key] {
			return exchange.Path
		}
	}
	if !f.Whole && f.Model != "" {
		return exchange.Weak
	}
	return exchange.No
}

// fetched returns the API of which a GET fetches an answer that was asked for before:
// …/responses/ID, …/threads/ID/runs/ID, …/batches/ID. What OpenAI calls its ids tells
// them from other resources of that name.
func fetched(req *exchange.Request, h *hosts.Host) api {
	slash := strings.LastIndexByte(req.Path, '/')
	if req.Method != "GET" || slash < 0 {
		return none
	}
	for _, x := range []struct {
		collection, id string
		api            api
	}{{"/responses", "resp_", responses}, {"/runs", "run_", runs}, {"/batches", "batch_", batches}} {
		if strings.HasSuffix(req.Path[:slash], x.collection) && (h != nil && slash+1 < len(req.Path) || strings.HasPrefix(req.Path[slash+1:], x.id)) &&
			(x.api != runs || strings.Contains(req.Path, "/threads/")) {
			return x.api
		}
	}
	return none
}

// Open implements exchange.Vendor.
func (v *Vendor) Open(req *exchange.Request, f *exchange.Facts, c *llm.Call) exchange.Decoder {
	if a := upgraded(req); a != none {
		return v.openSocket(a, req, c)
	}
	d := &call{v: v, c: c, f: f, api: chat}
	h := hosts.Lookup(req.Host, req.Path)
	if h != nil {
		c.Provider = h.Provider
	}
	if e := find(req.Path, h); e != nil {
		d.api = e.api
	}
	if a := fetched(req, h); a != none {
		d.api, d.fetches = a, true
		c.Stream = strings.Contains(req.Query, "stream=true")
	}
	c.Operation = operations[d.api]
	d.deployment = deployment(req.Path)
	d.ask()
	d.meter.Open(v.cfg, f, c)
	return d
}

// deployment is the name in an Azure path, …/deployments/NAME/….
func deployment(path string) string {
	_, rest, ok := strings.Cut(path, "/deployments/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return names.InPath(name)
}

// call decodes one call.
type call struct {
	v          *Vendor
	c          *llm.Call
	f          *exchange.Facts
	api        api
	deployment string
	meter      content.Meter
	usage      usage

	reasons answer.Reasons
	tool    [maxTools]struct {
		id    string
		named bool
	}
	status   string // Responses, runs
	reason   string // incomplete_details.reason
	items    bool   // output items were streamed
	finished bool   // a terminal status was seen
	stream   bool   // events came
	done     bool   // the terminator was seen
	whole    bool   // the body, or the event with the usage, was read to its end
	pictures int
	pages    stated.Count

	background bool // the response is made while nobody waits
	fetches    bool // the request asks for a response that was made before
}

const maxTools = 32

// ask takes over what the request says.
func (d *call) ask() {
	content.Asked(d.f, d.c)
	if d.c.RequestModel == "" {
		d.c.RequestModel = d.deployment
	}
}

// Response implements exchange.Decoder.
func (d *call) Response(r *exchange.Response) {
	d.ask()
	if cost := r.Header.Get(CostLiteLLM); cost != "" && decimal(cost) {
		d.c.StatedCost, d.c.StatedCostSource = cost, CostLiteLLM
	}
	if d.c.Provider == "azure.ai.openai" {
		d.c.Region = names.Of(r.Header.Get("X-Ms-Region"))
	}
}

// decimal reports whether text is a number that may be a cost.
func decimal(text string) bool {
	n, err := strconv.ParseFloat(text, 64)
	return err == nil && n >= 0 && n < 1e9 && len(text) <= 64
}

// Body implements exchange.Decoder.
func (d *call) Body(r io.Reader) error {
	s := d.v.scan.Get(r)
	defer d.v.scan.Put(s)
	if s.Kind() != jsonscan.Object {
		return d.other(s)
	}
	d.object(s, "")
	err := s.End()
	d.whole = err == nil
	return err
}

// other passes over a body that is no object: sound, subtitles, plain text.
func (d *call) other(s *jsonscan.Scanner) error {
	if s.Kind() == jsonscan.Array {
		s.Skip()
	}
	err := s.Err()
	var bad *jsonscan.SyntaxError
	if errors.As(err, &bad) {
		err = nil
	}
	d.whole = err == nil
	return err
}

// Event implements exchange.Decoder.
func (d *call) Event(e *exchange.Event) error {
	s := d.v.scan.Get(e.Data)
	defer d.v.scan.Put(s)
	d.stream = true
	d.c.Stream = true
	d.meter.Event()
	switch s.Kind() {
	case jsonscan.Object:
	case jsonscan.Array:
		if string(s.Peek(6)) == "[DONE]" {
			d.done, e.Done = true, true
		}
		return nil
	default:
		err := s.Err()
		var bad *jsonscan.SyntaxError
		if errors.As(err, &bad) {
			return nil // a keep-alive in plain words
		}
		return err
	}
	stated := d.usage.seen
	d.usage.seen = false
	d.object(s, e.Name)
	err := s.End()
	switch {
	case err != nil:
		d.whole = false
	case d.usage.seen:
		d.whole = true
	}
	d.usage.seen = d.usage.seen || stated
	e.Content = d.meter.Kind()
	e.Done = d.done
	return err
}

func (d *call) object(s *jsonscan.Scanner, name string) {
	switch d.api {
	case responses:
		d.response(s, name)
	case runs:
		d.run(s, name)
	case images, speech, transcription, ocr:
		d.media(s, name)
	case batches:
		d.batch(s)
	case conversations:
		d.conversation(s, name)
	default:
		d.chunk(s)
	}
}

// End implements exchange.Decoder.
func (d *call) End(err error) {
	c := d.c
	c.FinishReasons = d.reasons.List()
	d.usage.settle(c, d.api)
	if d.pages.OK {
		d.pages.Into(&c.Usage, llm.Pages)
	}
	if d.pictures > 0 {
		c.Usage.Set(llm.Images, float64(d.pictures))
	}
	if d.api == speech && d.f.Whole && c.Status < 400 && !d.usage.seen {
		c.Usage.Set(llm.Characters, float64(d.f.Text.Chars)) // what is billed, and only the request has it
	}
	// A stream that ends in order without terminator and every choice's finish reason was given up.
	ended := err == nil && (!d.stream || d.done || d.finished || d.reasons.Ended() || c.InBandError)
	if !c.Usage.Empty() {
		c.Completeness, c.UsageSource = llm.Estimated, llm.SourceBody
		switch {
		case ended && d.whole && d.stream:
			c.Completeness, c.UsageSource = llm.Exact, llm.SourceStream
		case ended && d.whole:
			c.Completeness = llm.Exact
		case d.stream:
			c.UsageSource = llm.SourceStreamPartial
		}
	}
	c.Deferred = d.deferred(err)
	d.meter.End(ended)
}

// first takes a string that keeps its first value: the id, which gateways may change
// to that of a fallback or a stub in the middle of a stream.
func first(s *jsonscan.Scanner, dst *string) {
	if *dst == "" {
		s.Into(dst)
	}
}

// last takes a string of which the last value counts, if it isn't empty.
func last(s *jsonscan.Scanner, dst *string) {
	old := *dst
	if s.Into(dst) && *dst == "" {
		*dst = old
	}
}
