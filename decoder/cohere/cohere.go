// Package cohere decodes Cohere's API, versions 1 and 2: chat, generate, embed and
// rerank. Usage is in billed units, which bills follow; the tokens stated beside them
// include the preamble that Cohere adds (https://docs.cohere.com/reference/chat).
package cohere

import (
	"strings"

	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
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
func (*Vendor) Name() string { return "cohere" }

// api is one path; needs are the keys by which its body is known at another host.
type api struct {
	suffix    string
	operation string
	needs     []string
}

var apis = []api{
	{"/v2/chat", "chat", []string{"messages", "model"}},
	{"/v1/chat", "chat", []string{"message"}},
	{"/v1/generate", "text_completion", []string{"prompt", "model", "max_tokens"}},
	{"/v1/summarize", "text_completion", []string{"text", "length"}},
	{"/v2/embed", "embeddings", []string{"input_type"}},
	{"/v1/embed", "embeddings", []string{"texts"}},
	{"/v1/classify", "classify", []string{"inputs", "examples"}},
	{"/v2/rerank", "rerank", []string{"query", "documents"}},
	{"/v1/rerank", "rerank", []string{"query", "documents"}},
}

func find(path string) (a api, ok bool) {
	path = strings.TrimSuffix(path, "/")
	for _, a := range apis {
		if strings.HasSuffix(path, a.suffix) {
			return a, true
		}
	}
	return a, false
}

func home(host string) bool {
	host, _, _ = strings.Cut(host, ":")
	return host == "api.cohere.com" || host == "api.cohere.ai" || strings.HasSuffix(host, ".cohere.com")
}

// Recognize implements exchange.Vendor. Reranking at other hosts is package rerank's.
func (*Vendor) Recognize(req *exchange.Request, facts *exchange.Facts) exchange.Confidence {
	a, ok := find(req.Path)
	switch {
	case req.Method != "POST" || !ok:
		return exchange.No
	case home(req.Host):
		return exchange.Sure
	case !facts.Known:
		return exchange.Maybe
	}
	for _, key := range a.needs {
		if !facts.Keys[key] {
			return exchange.No
		}
	}
	if a.operation == "rerank" {
		return exchange.Weak
	}
	return exchange.Path
}

// Open implements exchange.Vendor.
func (v *Vendor) Open(req *exchange.Request, facts *exchange.Facts, c *llm.Call) exchange.Decoder {
	a, _ := find(req.Path)
	c.Provider = "cohere"
	c.Operation = a.operation
	content.Asked(facts, c)
	d := &decoder{v: v, c: c, facts: facts}
	d.meter.Open(v.cfg, facts, c)
	return d
}
