// Package bedrock decodes Amazon Bedrock's runtime: Converse and InvokeModel with
// every vendor's bodies, whole or as AWS event-streams, agents and guardrails
// (https://docs.aws.amazon.com/bedrock/latest/APIReference/). Its OpenAI-shaped
// endpoints are package openai's.
package bedrock

import (
	"strings"
	"sync"

	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/names"
	"github.com/tollwire/tollwire/llm"
)

// Vendor implements exchange.Vendor.
type Vendor struct {
	cfg    content.Config
	scan   jsonscan.Pool
	chunks sync.Pool // of *chunk
}

// New returns the vendor.
func New(cfg content.Config) *Vendor { return &Vendor{cfg: cfg} }

// Name implements exchange.Vendor.
func (*Vendor) Name() string { return "bedrock" }

// target is what a path /model/MODEL/VERB says. MODEL is an id, or the ARN of an
// inference profile, a provisioned throughput or an imported model.
type target struct {
	model    string
	converse bool
	stream   bool
}

func parse(path string) (t target, ok bool) {
	_, rest, ok := strings.Cut(path, "/model/")
	if !ok {
		return t, false
	}
	slash := strings.LastIndexByte(rest, '/')
	if slash < 1 {
		return t, false
	}
	switch rest[slash+1:] {
	case "converse":
		t.converse = true
	case "converse-stream":
		t.converse, t.stream = true, true
	case "invoke":
	case "invoke-with-response-stream":
		t.stream = true
	default:
		return t, false
	}
	t.model = names.InPath(rest[:slash])
	return t, true
}

// Recognize implements exchange.Vendor.
func (*Vendor) Recognize(req *exchange.Request, _ *exchange.Facts) exchange.Confidence {
	_, ok := parse(req.Path)
	if !ok {
		_, ok = agents(req.Path)
	}
	ok = ok || isGuardrail(req.Path)
	if !ok || req.Method != "POST" {
		return exchange.No
	}
	if strings.Contains(req.Host, "bedrock") || req.Header.Get("Amz-Sdk-Invocation-Id") != "" {
		return exchange.Sure
	}
	return exchange.Path
}

// Open implements exchange.Vendor.
func (v *Vendor) Open(req *exchange.Request, facts *exchange.Facts, c *llm.Call) exchange.Decoder {
	t, _ := parse(req.Path)
	c.Provider = "aws.bedrock"
	c.Operation = operation(t)
	c.Region = region(req)
	b := base{v: v, c: c, facts: facts, target: t}
	b.asked()
	if op, ok := agents(req.Path); ok {
		c.Operation = op
		d := &agent{base: b}
		d.meter.Open(v.cfg, facts, c)
		return d
	}
	if isGuardrail(req.Path) {
		c.Operation = "apply_guardrail"
		return &guardrail{base: b}
	}
	if t.converse {
		d := &converse{base: b}
		d.meter.Open(v.cfg, facts, c)
		return d
	}
	return &invoke{base: b}
}

// operation goes by the model's name; what the answer is says it again, for models
// whose name is an ARN.
func operation(t target) string {
	switch {
	case t.converse:
	case strings.Contains(t.model, "embed"):
		return "embeddings"
	case strings.Contains(t.model, "rerank"):
		return "rerank"
	case strings.Contains(t.model, "stability."), strings.Contains(t.model, "titan-image"), strings.Contains(t.model, "nova-canvas"):
		return "generate_content"
	}
	return "chat"
}

// region is in the host (bedrock-runtime.REGION.amazonaws.com, an interface endpoint's
// too), else in the scope of the request's signature.
func region(req *exchange.Request) string {
	host, _, _ := strings.Cut(req.Host, ":")
	for rest, more := host, true; more; {
		var label string
		label, rest, more = strings.Cut(rest, ".")
		if strings.HasPrefix(label, "bedrock-runtime") || strings.HasPrefix(label, "bedrock-agent-runtime") {
			r, _, _ := strings.Cut(rest, ".")
			if strings.Count(r, "-") >= 2 {
				return strings.Clone(r)
			}
		}
	}
	// Credential=AKID/20260101/us-east-1/bedrock/aws4_request
	if _, scope, ok := strings.Cut(req.Header.Get("Authorization"), "Credential="); ok {
		if part := strings.SplitN(scope, "/", 5); len(part) == 5 && len(part[2]) <= 32 && strings.Count(part[2], "-") >= 2 {
			return names.Of(part[2])
		}
	}
	return ""
}

// base is what the decoders of both APIs have in common.
type base struct {
	v       *Vendor
	c       *llm.Call
	facts   *exchange.Facts
	target  target
	headers counts // of the answer's head
	stream  bool   // events were read
	broken  bool   // an exception ended the stream
}

// asked takes over what the request says. Model and stream are the path's to say.
func (b *base) asked() {
	content.Asked(b.facts, b.c)
	b.c.RequestModel = b.target.model
	b.c.Stream = b.target.stream
}

// Response implements exchange.Decoder.
func (b *base) Response(r *exchange.Response) {
	b.asked()
	for name, n := range map[string]*field{
		"Input-Token-Count": &b.headers.input, "Output-Token-Count": &b.headers.output,
		"Cache-Read-Input-Token-Count": &b.headers.read, "Cache-Write-Input-Token-Count": &b.headers.write,
	} {
		n.header(r.Header.Get("X-Amzn-Bedrock-" + name))
	}
	if r.Status >= 400 {
		// ValidationException:http://internal.amazon.com/coral/…
		kind, _, _ := strings.Cut(r.Header.Get("X-Amzn-Errortype"), ":")
		b.c.ErrorType = names.Of(kind)
	}
}

// anthropics reports whether the request is Anthropic's: its body names the version
// even where the model is an ARN.
func (b *base) anthropics() bool {
	return b.facts.AnthropicVersion != "" || strings.Contains(b.target.model, "anthropic.")
}
