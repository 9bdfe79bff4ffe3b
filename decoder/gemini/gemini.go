// Package gemini decodes Google's generative APIs as JSON over HTTP: generateContent
// and its stream, embeddings, Vertex AI's predict, Interactions, Live; at the Gemini API,
// Vertex AI, Cloud Code Assist, and at gateways that speak the same.
//
// Usage by https://ai.google.dev/api/generate-content#UsageMetadata: the prompt
// includes what is cached; thoughts and the prompts made by tools stand apart from
// candidates and prompt, and the total is the sum of the four.
package gemini

import (
	"net"
	"net/url"
	"strings"

	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/names"
	"github.com/tollwire/tollwire/llm"
)

// Vendor implements exchange.Vendor.
type Vendor struct {
	cfg  content.Config
	scan jsonscan.Pool
}

// New returns the vendor.
func New(cfg content.Config) *Vendor { return &Vendor{cfg: cfg} }

// Name implements exchange.Vendor.
func (*Vendor) Name() string { return "gemini" }

// target is what a path like …/models/MODEL:VERB says.
type target struct {
	verb      string
	model     string
	location  string // Vertex AI's
	publisher string
}

// The operation of each verb. Others, countTokens above all, are no calls to a model.
var operations = map[string]string{
	"generateContent":       "generate_content",
	"streamGenerateContent": "generate_content",
	"embedContent":          "embeddings",
	"batchEmbedContents":    "embeddings",
	"predict":               "", // by its model
	"interactions":          "chat",
}

func parse(path string) (t target, ok bool) {
	path, err := url.PathUnescape(path)
	if err != nil {
		return t, false
	}
	path = strings.TrimSuffix(path, "/")
	slash := strings.LastIndexByte(path, '/')
	colon := strings.LastIndexByte(path, ':')
	switch {
	case colon > slash:
		t.verb, path = path[colon+1:], path[:colon]
	case path[slash+1:] == "interactions" && strings.HasPrefix(after(path, "/v1"), "beta"):
		t.verb = "interactions"
		return t, true
	default:
		return t, false
	}
	if _, ok := operations[t.verb]; !ok {
		return t, false
	}
	t.location, _, _ = strings.Cut(after(path, "/locations/"), "/")
	t.publisher, _, _ = strings.Cut(after(path, "/publishers/"), "/")
	switch {
	case strings.HasSuffix(path, "/v1internal"): // the body names the model
	case t.publisher != "":
		t.model = after(path, "/models/")
	default:
		// models/MODEL, tunedModels/MODEL, endpoints/ENDPOINT
		t.model = path[strings.LastIndexByte(path, '/')+1:]
	}
	if t.verb == "predict" && t.publisher != "google" {
		return t, false // any model of any kind
	}
	return t, true
}

// after is what stands behind the first sep in s, or "".
func after(s, sep string) string {
	_, rest, _ := strings.Cut(s, sep)
	return rest
}

// Recognize implements exchange.Vendor.
func (*Vendor) Recognize(req *exchange.Request, facts *exchange.Facts) exchange.Confidence {
	if isLive(req) {
		if provider(req.Host) != "" {
			return exchange.Sure
		}
		return exchange.Path
	}
	if req.Method != "POST" {
		return exchange.No
	}
	if t, ok := parse(req.Path); ok {
		switch {
		case t.verb == "interactions" && provider(req.Host) == "" && !facts.Known:
			return exchange.Maybe
		case t.verb == "interactions" && provider(req.Host) == "" && !(facts.Keys["input"] && (facts.Keys["model"] || facts.Keys["agent"])):
			return exchange.No
		case provider(req.Host) != "" || req.Header.Get("X-Goog-Api-Key") != "":
			return exchange.Sure
		}
		return exchange.Path
	}
	if strings.HasSuffix(req.Path, "/cachedContents") {
		return exchange.No // what it stores is billed by the hour
	}
	if colon := strings.LastIndexByte(req.Path, ':'); colon > strings.LastIndexByte(req.Path, '/') {
		return exchange.No // countTokens and other verbs
	}
	if !facts.Known {
		return exchange.Maybe
	}
	if facts.Keys["contents"] && (facts.Keys["generationConfig"] || facts.Keys["systemInstruction"] ||
		facts.Keys["safetySettings"] || facts.Keys["toolConfig"] || !facts.Keys["messages"] && !facts.Keys["input"]) {
		return exchange.Weak
	}
	return exchange.No
}

// provider is OpenTelemetry's name for the service at a host, "" for an unknown one.
func provider(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	switch {
	case host == "aiplatform.googleapis.com", strings.HasSuffix(host, "-aiplatform.googleapis.com"),
		strings.HasPrefix(host, "aiplatform.") && strings.HasSuffix(host, ".rep.googleapis.com"):
		return "gcp.vertex_ai"
	case host == "generativelanguage.googleapis.com", strings.HasSuffix(host, "-generativelanguage.googleapis.com"),
		strings.HasSuffix(host, "cloudcode-pa.googleapis.com"), strings.HasSuffix(host, "cloudcode-pa.sandbox.googleapis.com"):
		return "gcp.gemini"
	}
	return ""
}

// Open implements exchange.Vendor.
func (v *Vendor) Open(req *exchange.Request, facts *exchange.Facts, c *llm.Call) exchange.Decoder {
	t, _ := parse(req.Path)
	c.Provider = provider(req.Host)
	c.Operation = operations[t.verb]
	if c.Operation == "" && t.verb == "predict" {
		c.Operation = "generate_content"
		if strings.Contains(t.model, "embedding") || strings.HasPrefix(t.model, "textembedding-gecko") {
			c.Operation = "embeddings"
		}
	} else if c.Operation == "" {
		c.Operation = "generate_content"
	}
	c.RequestModel = names.Of(t.model)
	c.Region = names.Of(t.location)
	c.Stream = t.verb == "streamGenerateContent" || strings.Contains(req.Query, "alt=sse") || facts.Stream
	if isLive(req) {
		return newLive(v, facts, c.Provider, c)
	}
	switch t.verb {
	case "interactions":
		d := &interaction{v: v, c: c, facts: facts}
		d.meter.Open(v.cfg, facts, c)
		return d
	case "predict":
		return &prediction{v: v, c: c}
	}
	d := &decoder{v: v, c: c, facts: facts}
	d.meter.Open(v.cfg, facts, c)
	return d
}

// asked takes over what the body says of any call, where the path doesn't say it.
func asked(facts *exchange.Facts, c *llm.Call) {
	model, stream := c.RequestModel, c.Stream
	content.Asked(facts, c)
	if model != "" {
		c.RequestModel = model
	}
	c.Stream = c.Stream || stream
}
