package sim

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Plan is how one call is answered. The server's default plan is overlaid by the
// request's query parameter "llmsim" and then by its header "x-llmsim", both a list
// of key=value separated by semicolons or commas. Help explains each key.
type Plan struct {
	Tokens int // visible output tokens
	Think  int // reasoning tokens
	Body   int // bytes of visible text, when not implied by Tokens
	Size   int // bytes of each delta; 0: one token each

	Input      int // fresh input tokens; -1: a quarter of the request body's bytes
	CacheRead  int
	CacheWrite int // time to live unstated
	Write5m    int
	Write1h    int

	Head   time.Duration // before the response's head
	First  time.Duration // from the head to the first token
	Rate   float64       // tokens a second; 0: as fast as they can be written
	Jitter float64       // share of each gap that is random, 0 to 1
	Seed   uint64        // of the content

	Encoding string // content coding: identity, auto, gzip, br, zstd, deflate
	Finish   string // stop, length, tool, filter, refusal
	Tool     string // name of the tool the model calls
	Model    string // model served; "": made from the one asked for
	Tier     string // service tier served

	Error    string // "", inband, or an HTTP status
	ErrorAt  int    // inband: after how many content deltas
	Retry    int    // errors: seconds in retry-after, 0 for none
	Cut      int    // the connection closes after so many content deltas; -1: never
	Usage    string // streams: asked (as the API says), off, every
	Coalesce int    // events in one write
	Split    time.Duration
	Gap      time.Duration // recorded answers: pause between pieces

	Obfuscation bool // random padding, as OpenAI and Anthropic add it
	Ping        bool // pings and keep-alive comments
	CRLF        bool // SSE lines end in CRLF
	Close       bool // Connection: close
	ShowThink   bool // OpenAI's shape: stream reasoning_content, as DeepSeek does
}

// DefaultPlan is what a call gets that asks for nothing.
func DefaultPlan() Plan {
	return Plan{
		Tokens: 24, Input: -1, Seed: 1, Encoding: "identity", Finish: "stop", Cut: -1, ErrorAt: 3,
		Usage: "asked", Coalesce: 1, Obfuscation: true, Ping: true,
	}
}

// A param is one key of a plan.
type param struct {
	key, value, help string
	set              func(*Plan, string) error
}

var params = []param{
	{"tokens", "N", "visible output tokens (24)", number(func(p *Plan) *int { return &p.Tokens }, 0)},
	{"think", "N", "reasoning tokens before them (0)", number(func(p *Plan) *int { return &p.Think }, 0)},
	{"body", "BYTES", "visible text of exactly so many bytes; tokens is then a quarter of it", setBody},
	{"size", "BYTES", "bytes of each delta (one token; 1024 with body)", number(func(p *Plan) *int { return &p.Size }, 0)},
	{"input", "N", "fresh input tokens (a quarter of the request's bytes)", number(func(p *Plan) *int { return &p.Input }, 0)},
	{"cached", "N", "tokens read from the prompt cache", number(func(p *Plan) *int { return &p.CacheRead }, 0)},
	{"write", "N", "tokens written to it, time to live unstated", number(func(p *Plan) *int { return &p.CacheWrite }, 0)},
	{"write5m", "N", "tokens written to it for five minutes", number(func(p *Plan) *int { return &p.Write5m }, 0)},
	{"write1h", "N", "tokens written to it for an hour", number(func(p *Plan) *int { return &p.Write1h }, 0)},
	{"head", "DURATION", "delay before the response's head", duration(func(p *Plan) *time.Duration { return &p.Head })},
	{"first", "DURATION", "delay from the head to the first token", duration(func(p *Plan) *time.Duration { return &p.First })},
	{"rate", "R", "tokens a second (0: no pause)", fraction(func(p *Plan) *float64 { return &p.Rate }, 1e6)},
	{"jitter", "0..1", "share of each gap that is random", fraction(func(p *Plan) *float64 { return &p.Jitter }, 1)},
	{"seed", "N", "of the content (1)", func(p *Plan, v string) (err error) {
		p.Seed, err = strconv.ParseUint(v, 10, 64)
		return err
	}},
	{"encoding", "NAME", "content coding: identity, auto (what the client accepts), gzip, br, zstd, deflate",
		oneOf(func(p *Plan) *string { return &p.Encoding }, "identity", "auto", "gzip", "br", "zstd", "deflate")},
	{"finish", "WHY", "stop, length, tool, filter, refusal",
		oneOf(func(p *Plan) *string { return &p.Finish }, "stop", "length", "tool", "filter", "refusal")},
	{"tool", "NAME", "the model calls this tool", func(p *Plan, v string) error {
		p.Tool, p.Finish = v, "tool"
		return nil
	}},
	{"model", "ID", "the model served (a dated id of the one asked for)", text(func(p *Plan) *string { return &p.Model })},
	{"tier", "NAME", "service tier served", text(func(p *Plan) *string { return &p.Tier })},
	{"error", "WHAT", "an HTTP status (400, 401, 429, 500, 529 …), or inband: an error event in the stream", setError},
	{"errorat", "N", "inband: after so many content deltas (3)", number(func(p *Plan) *int { return &p.ErrorAt }, 0)},
	{"retry", "SECONDS", "retry-after of an error", number(func(p *Plan) *int { return &p.Retry }, 0)},
	{"cut", "N", "close the connection after N content deltas; a unary body is cut in its middle", number(func(p *Plan) *int { return &p.Cut }, 0)},
	{"usage", "WHEN", "usage in streams: asked (as the API does), off, every (in every chunk)",
		oneOf(func(p *Plan) *string { return &p.Usage }, "asked", "off", "every")},
	{"coalesce", "N", "events in one write (1)", number(func(p *Plan) *int { return &p.Coalesce }, 1)},
	{"split", "DURATION", "write each event in two halves with this pause between", duration(func(p *Plan) *time.Duration { return &p.Split })},
	{"gap", "DURATION", "recorded answers: pause between pieces", duration(func(p *Plan) *time.Duration { return &p.Gap })},
	{"obfuscation", "on|off", "random padding in events (on)", onOff(func(p *Plan) *bool { return &p.Obfuscation })},
	{"ping", "on|off", "pings and keep-alive comments (on)", onOff(func(p *Plan) *bool { return &p.Ping })},
	{"crlf", "on|off", "SSE lines end in CRLF (off, on for Gemini)", onOff(func(p *Plan) *bool { return &p.CRLF })},
	{"close", "on|off", "close the connection after the response (off)", onOff(func(p *Plan) *bool { return &p.Close })},
	{"showthink", "on|off", "OpenAI's shape: stream reasoning_content (off)", onOff(func(p *Plan) *bool { return &p.ShowThink })},
}

// Help lists the keys of a plan, a line each.
func Help() string {
	var b strings.Builder
	for _, p := range params {
		fmt.Fprintf(&b, "  %-22s %s\n", p.key+"="+p.value, p.help)
	}
	return b.String()
}

// Overlay sets the keys of spec in p. An unknown key and a bad value are errors
// that say what was expected.
func (p *Plan) Overlay(spec string) error {
	for item := range strings.FieldsFuncSeq(spec, func(r rune) bool { return r == ';' || r == ',' }) {
		key, value, ok := strings.Cut(strings.TrimSpace(item), "=")
		if !ok {
			return fmt.Errorf("%q, want key=value", item)
		}
		i := slices.IndexFunc(params, func(q param) bool { return q.key == key })
		if i < 0 {
			return fmt.Errorf("unknown key %q", key)
		}
		if err := params[i].set(p, strings.TrimSpace(value)); err != nil {
			return fmt.Errorf("%s=%s, want %s: %w", key, value, params[i].value, err)
		}
	}
	return nil
}

// planFor returns the plan for a request.
func planFor(base Plan, r *http.Request) (Plan, error) {
	for part := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if v, ok := strings.CutPrefix(part, "llmsim="); ok {
			spec, err := url.QueryUnescape(v)
			if err != nil {
				return base, fmt.Errorf("query llmsim: %w", err)
			}
			if err := base.Overlay(spec); err != nil {
				return base, fmt.Errorf("query llmsim: %w", err)
			}
		}
	}
	for _, spec := range r.Header.Values("X-Llmsim") {
		if err := base.Overlay(spec); err != nil {
			return base, fmt.Errorf("header x-llmsim: %w", err)
		}
	}
	return base, nil
}

// maxAmount bounds every count a request may ask for.
const maxAmount = 1 << 30

func number(at func(*Plan) *int, least int) func(*Plan, string) error {
	return func(p *Plan, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil {
			return err
		}
		if n < least || n > maxAmount {
			return fmt.Errorf("not between %d and %d", least, maxAmount)
		}
		*at(p) = n
		return nil
	}
}

func duration(at func(*Plan) *time.Duration) func(*Plan, string) error {
	return func(p *Plan, v string) error {
		d, err := time.ParseDuration(v)
		if err != nil {
			return err
		}
		if d < 0 || d > time.Hour {
			return fmt.Errorf("not between 0 and 1h")
		}
		*at(p) = d
		return nil
	}
}

func fraction(at func(*Plan) *float64, most float64) func(*Plan, string) error {
	return func(p *Plan, v string) error {
		f, err := strconv.ParseFloat(v, 64)
		if err != nil {
			return err
		}
		if !(f >= 0 && f <= most) {
			return fmt.Errorf("not between 0 and %g", most)
		}
		*at(p) = f
		return nil
	}
}

func text(at func(*Plan) *string) func(*Plan, string) error {
	return func(p *Plan, v string) error { *at(p) = v; return nil }
}

func oneOf(at func(*Plan) *string, names ...string) func(*Plan, string) error {
	return func(p *Plan, v string) error {
		if !slices.Contains(names, v) {
			return fmt.Errorf("one of %s", strings.Join(names, ", "))
		}
		*at(p) = v
		return nil
	}
}

func onOff(at func(*Plan) *bool) func(*Plan, string) error {
	return func(p *Plan, v string) error {
		switch v {
		case "on":
			*at(p) = true
		case "off":
			*at(p) = false
		default:
			return fmt.Errorf("neither on nor off")
		}
		return nil
	}
}

func setBody(p *Plan, v string) error {
	if err := number(func(p *Plan) *int { return &p.Body }, 0)(p, v); err != nil {
		return err
	}
	p.Tokens = (p.Body + 3) / 4
	if p.Size == 0 {
		p.Size = 1024
	}
	return nil
}

func setError(p *Plan, v string) error {
	if v != "inband" {
		if n, err := strconv.Atoi(v); err != nil || n < 400 || n > 599 {
			return fmt.Errorf("a status from 400 to 599, or inband")
		}
	}
	p.Error = v
	return nil
}
