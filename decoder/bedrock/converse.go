package bedrock

import (
	"io"

	"github.com/tollwire/tollwire/decoder/answer"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/llm"
)

// converse decodes Converse and ConverseStream.
type converse struct {
	base
	shape
	final bool // the metadata event was read
}

// Body implements exchange.Decoder.
func (d *converse) Body(r io.Reader) error {
	s := d.v.scan.Get(r)
	defer d.v.scan.Put(s)
	for key := range s.Object {
		if !d.member(s, key, d.c) && string(key) == "__type" {
			s.Into(&d.c.ErrorType)
		}
	}
	d.final = s.End() == nil
	return s.Err()
}

// Event implements exchange.Decoder.
func (d *converse) Event(e *exchange.Event) error {
	d.stream = true
	if e.Exception != "" {
		d.exception(e)
		return nil
	}
	s := d.v.scan.Get(e.Data)
	defer d.v.scan.Put(s)
	d.meter.Event()
	d.event(s, e.Name, d.c)
	e.Content = d.meter.Kind()
	if err := s.End(); err != nil {
		return err
	}
	if e.Name == "metadata" {
		d.final, e.Done = true, true
	}
	return nil
}

// exception ends a stream that began well.
func (b *base) exception(e *exchange.Event) {
	b.broken = true
	b.c.InBandError, b.c.ErrorType = true, e.Exception
	e.Done = true
}

// End implements exchange.Decoder.
func (d *converse) End(err error) {
	c := d.c
	d.shape.end(c)
	d.usage.settle(c)
	whole := err == nil && d.final && !d.broken
	source := llm.SourceBody
	if d.stream {
		source = llm.SourceStream
	}
	answer.Settle(c, source, whole && d.usage.output.OK)
	d.meter.End(whole)
}

// shape reads the objects of Converse, which InvokeModel's Nova speaks as well.
type shape struct {
	meter content.Meter
	stop  string
	usage counts
}

// member reads a member of a whole answer, or an event that is wrapped in its name.
func (d *shape) member(s *jsonscan.Scanner, key []byte, c *llm.Call) bool {
	switch string(key) {
	case "output":
		for key := range s.Object {
			if string(key) != "message" {
				continue
			}
			for key := range s.Object {
				if string(key) == "content" {
					for i := range s.Array {
						d.block(s, i)
						d.meter.ToolEnd(i)
					}
				}
			}
		}
	case "usage":
		d.usage.scan(s)
	case "stopReason":
		s.Into(&d.stop)
	case "serviceTier", "performanceConfig", "trace":
		d.served(s, key, c)
	case "messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata":
		d.event(s, string(key), c)
	default:
		return false
	}
	return true
}

// event reads the payload of an event of that name.
func (d *shape) event(s *jsonscan.Scanner, name string, c *llm.Call) {
	index := 0
	for key := range s.Object {
		switch string(key) {
		case "contentBlockIndex":
			if n, ok := s.Int(); ok && n >= 0 {
				index = int(min(n, 1<<20))
			}
		case "start", "delta":
			d.block(s, index)
		case "stopReason":
			s.Into(&d.stop)
		case "usage":
			d.usage.scan(s)
		case "serviceTier", "performanceConfig", "trace":
			d.served(s, key, c)
		}
	}
	if name == "contentBlockStop" {
		d.meter.ToolEnd(index)
	}
}

// served reads what says how the call was served.
func (d *shape) served(s *jsonscan.Scanner, key []byte, c *llm.Call) {
	switch string(key) {
	case "serviceTier":
		for key := range s.Object {
			if string(key) == "type" {
				s.Into(&c.ServiceTier)
			}
		}
	case "performanceConfig":
		for key := range s.Object {
			latency := ""
			if string(key) == "latency" {
				s.Into(&latency)
			}
			if latency == "optimized" && c.ServiceTier == "" {
				c.ServiceTier = latency
			}
		}
	case "trace":
		for key := range s.Object {
			if string(key) == "promptRouter" {
				for key := range s.Object {
					if string(key) == "invokedModelId" {
						s.Into(&c.ResponseModel)
					}
				}
			}
		}
	}
}

// block reads a content block, or a piece of one. contentBlockIndex may stand behind
// the piece: arguments are then followed as those of block 0, which is where a stream
// has them one block after the other.
func (d *shape) block(s *jsonscan.Scanner, index int) {
	for key := range s.Object {
		switch string(key) {
		case "text":
			s.Stream(func(p []byte) { d.meter.Text(0, p) })
		case "reasoningContent":
			d.reasoning(s)
		case "toolUse":
			for key := range s.Object {
				switch string(key) {
				case "name":
					name := ""
					if s.Into(&name); name != "" {
						d.meter.ToolEnd(index)
						d.meter.Tool(name)
					}
				case "input":
					if s.Kind() == jsonscan.String {
						s.Stream(func(p []byte) { d.meter.Arguments(index, p) })
					} else {
						d.meter.Seen(exchange.Visible)
					}
				}
			}
		case "image", "audio", "video":
			d.meter.Seen(exchange.Visible)
		}
	}
}

func (d *shape) reasoning(s *jsonscan.Scanner) {
	for key := range s.Object {
		switch string(key) {
		case "text": // of a delta
			s.Stream(d.meter.Reasoning)
		case "reasoningText":
			for key := range s.Object {
				if string(key) == "text" {
					s.Stream(d.meter.Reasoning)
				}
			}
		case "redactedContent":
			d.meter.Seen(exchange.Hidden)
		}
	}
}

func (d *shape) end(c *llm.Call) {
	if d.stop != "" {
		c.FinishReasons = []string{d.stop}
	}
}
