package anthropic

import (
	"github.com/tollwire/tollwire/decoder/answer"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/decoder/stated"
	"github.com/tollwire/tollwire/llm"
)

// Message decodes a message of the Messages API, whole or in events, wherever it
// stands: the API itself, Vertex AI, Bedrock's InvokeModel. Open begins it, Object
// takes its JSON, End settles the call.
type Message struct {
	c     *llm.Call
	meter content.Meter
	usage usage

	stop    string
	stream  bool // events came
	started bool // input was stated, by the message or its message_start
	final   bool // the last usage was seen: message_delta's, or the whole message's
	done    bool // message_stop was seen

	// Metrics are what Bedrock adds to message_stop; nil when it didn't.
	Metrics *Metrics
}

// Metrics are Bedrock's own counts.
type Metrics struct {
	Input, Output, CacheRead, CacheWrite stated.Count
}

// Open begins the decoding of c.
func (m *Message) Open(cfg content.Config, f *exchange.Facts, c *llm.Call) {
	*m = Message{c: c}
	m.meter.Open(cfg, f, c)
}

// Done reports whether the message has ended: nothing of it follows.
func (m *Message) Done() bool { return m.done }

// Body reads a whole message, or an error. It returns s's error.
func (m *Message) Body(s *jsonscan.Scanner) error {
	m.object(s, "")
	err := s.End()
	m.started = m.usage.input.OK
	m.final = err == nil
	return err
}

// Event reads one event, of the given name where the framing has one, and returns
// what content it held and s's error. What is no JSON object is passed over.
func (m *Message) Event(s *jsonscan.Scanner, name string) (exchange.Content, error) {
	m.stream = true
	m.meter.Event()
	if s.Kind() != jsonscan.Object {
		return exchange.NoContent, nil
	}
	m.object(s, name)
	return m.meter.Kind(), s.End()
}

func (m *Message) object(s *jsonscan.Scanner, kind string) {
	index := 0
	stated := false
	for key := range s.Object {
		switch string(key) {
		case "type":
			s.Into(&kind)
		case "index":
			index = answer.Index(s, index)
		case "message":
			if s.Kind() == jsonscan.Object {
				m.message(s)
			}
		case "content_block":
			m.block(s, index)
		case "delta":
			m.delta(s, index)
		case "usage":
			if s.Kind() == jsonscan.Object {
				m.usage.read(s)
				stated = true
			}
		case "error":
			m.failed(s)
		case "completion": // the legacy API
			s.Stream(func(p []byte) { m.meter.Text(0, p) })
		case "amazon-bedrock-invocationMetrics":
			m.metrics(s)
		default:
			m.field(s, key)
		}
	}
	if s.Err() != nil {
		return
	}
	switch kind {
	case "message_delta":
		m.final = m.final || stated
	case "message_stop":
		m.done = true
	case "content_block_stop":
		m.meter.ToolEnd(index)
	case "completion":
		m.done = m.stream && m.stop != ""
	}
}

// message reads the message of message_start.
func (m *Message) message(s *jsonscan.Scanner) {
	for key := range s.Object {
		if string(key) == "usage" {
			m.usage.read(s)
			m.started = s.Err() == nil && m.usage.input.OK
		} else {
			m.field(s, key)
		}
	}
}

func (m *Message) field(s *jsonscan.Scanner, key []byte) {
	switch string(key) {
	case "id":
		s.Into(&m.c.ResponseID)
	case "model":
		s.Into(&m.c.ResponseModel)
	case "stop_reason":
		s.Into(&m.stop)
	case "content":
		for i := range s.Array {
			m.block(s, i)
		}
	}
}

// block reads a content block: whole, or as its stream begins.
func (m *Message) block(s *jsonscan.Scanner, index int) {
	kind, name := "", ""
	for key := range s.Object {
		switch string(key) {
		case "type":
			s.Into(&kind)
		case "name":
			s.Into(&name)
		case "text":
			s.Stream(func(p []byte) { m.meter.Text(0, p) })
		case "thinking":
			s.Stream(m.meter.Reasoning)
		case "input": // a stream begins with an empty one
			start := s.Offset()
			if s.Skip(); s.Offset()-start > int64(len("{}")) {
				m.meter.Unread(s.Offset() - start)
			}
		}
	}
	switch kind {
	case "tool_use", "server_tool_use", "mcp_tool_use":
		m.meter.Tool(name)
	case "redacted_thinking":
		m.meter.Seen(exchange.Hidden)
	}
}

func (m *Message) delta(s *jsonscan.Scanner, index int) {
	for key := range s.Object {
		switch string(key) {
		case "text":
			s.Stream(func(p []byte) { m.meter.Text(0, p) })
		case "thinking":
			s.Stream(m.meter.Reasoning)
		case "partial_json":
			s.Stream(func(p []byte) { m.meter.Arguments(index, p) })
		case "stop_reason":
			s.Into(&m.stop)
		}
	}
}

// failed reads {"type":"overloaded_error","message":…}.
func (m *Message) failed(s *jsonscan.Scanner) {
	if s.Kind() != jsonscan.Object {
		s.Skip()
		return
	}
	for key := range s.Object {
		if string(key) == "type" {
			s.Into(&m.c.ErrorType)
		}
	}
	m.c.InBandError = m.c.Status < 400
}

func (m *Message) metrics(s *jsonscan.Scanner) {
	m.Metrics = new(Metrics)
	for key := range s.Object {
		switch string(key) {
		case "inputTokenCount":
			m.Metrics.Input.Read(s)
		case "outputTokenCount":
			m.Metrics.Output.Read(s)
		case "cacheReadInputTokenCount":
			m.Metrics.CacheRead.Read(s)
		case "cacheWriteInputTokenCount":
			m.Metrics.CacheWrite.Read(s)
		}
	}
}

// End settles the call: finish reason, usage, completeness, quality. err is how the
// response ended, as exchange.Decoder's End is told.
func (m *Message) End(err error) {
	c := m.c
	if m.stop != "" {
		c.FinishReasons = []string{m.stop}
	}
	ended := err == nil && (!m.stream || m.done || m.stop != "")
	m.usage.settle(c)
	if !c.Usage.Empty() {
		c.Completeness, c.UsageSource = llm.Estimated, llm.SourceBody
		if m.stream {
			c.UsageSource = llm.SourceStreamPartial
		}
		if ended && m.started && m.final && m.usage.output.OK {
			c.Completeness = llm.Exact
			if m.stream {
				c.UsageSource = llm.SourceStream
			}
		}
	}
	m.meter.End(ended)
}
