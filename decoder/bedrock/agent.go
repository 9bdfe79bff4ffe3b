package bedrock

import (
	"io"
	"strings"

	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/stated"
	"github.com/tollwire/tollwire/llm"
)

// agents are the operations of the agents' runtime, by what a path ends with. Which
// models they call is said in their traces only, if at all.
func agents(path string) (operation string, ok bool) {
	switch {
	case strings.Contains(path, "/agents/") && strings.Contains(path, "/sessions/") && strings.HasSuffix(path, "/text"):
		return "invoke_agent", true
	case path == "/retrieveAndGenerate", path == "/retrieveAndGenerateStream":
		return "chat", true
	}
	return "", false
}

// agent decodes InvokeAgent and RetrieveAndGenerate. There is no usage of the whole:
// where traces are on, each call to a model states its own, and their sum is what is
// known.
type agent struct {
	base
	meter         content.Meter
	input, output stated.Count
}

// Body implements exchange.Decoder.
func (d *agent) Body(r io.Reader) error {
	s := d.v.scan.Get(r)
	defer d.v.scan.Put(s)
	for key := range s.Object {
		if string(key) == "output" {
			for key := range s.Object {
				if string(key) == "text" {
					s.Stream(d.text)
				}
			}
		}
	}
	return s.Err()
}

func (d *agent) text(p []byte) { d.meter.Text(0, p) }

// Event implements exchange.Decoder.
func (d *agent) Event(e *exchange.Event) error {
	d.stream, d.c.Stream = true, true
	if e.Exception != "" {
		d.exception(e)
		return nil
	}
	s := d.v.scan.Get(e.Data)
	defer d.v.scan.Put(s)
	d.meter.Event()
	switch e.Name {
	case "chunk", "files", "returnControl":
		d.meter.Seen(exchange.Visible)
		s.Skip()
	case "output": // RetrieveAndGenerateStream's
		for key := range s.Object {
			if string(key) == "text" {
				s.Stream(d.text)
			}
		}
	case "trace":
		for key := range s.Object {
			if string(key) == "trace" {
				for range s.Object { // orchestrationTrace, postProcessingTrace …
					d.trace(s)
				}
			}
		}
	default:
		s.Skip()
	}
	e.Content = d.meter.Kind()
	return s.End()
}

// trace reads {"modelInvocationOutput":{"metadata":{"usage":{…}}}}.
func (d *agent) trace(s *jsonscan.Scanner) {
	for key := range s.Object {
		if string(key) != "modelInvocationOutput" {
			continue
		}
		for key := range s.Object {
			if string(key) != "metadata" {
				continue
			}
			for key := range s.Object {
				if string(key) != "usage" {
					continue
				}
				var u counts
				u.scan(s)
				for sum, n := range map[*stated.Count]stated.Count{&d.input: u.input.Count, &d.output: u.output.Count} {
					sum.N, sum.OK = sum.N+n.N, sum.OK || n.OK
				}
			}
		}
	}
}

// End implements exchange.Decoder.
func (d *agent) End(err error) {
	c := d.c
	d.input.Into(&c.Usage, llm.Input)
	d.output.Into(&c.Usage, llm.Output)
	if !c.Usage.Empty() {
		c.Completeness, c.UsageSource = llm.Estimated, llm.SourceStream
		if err != nil || d.broken {
			c.UsageSource = llm.SourceStreamPartial
		}
		d.meter.End(err == nil)
	}
}
