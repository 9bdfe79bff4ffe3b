// Package content learns from what a model generates while it passes: how much it
// was, whether it is the JSON that was asked for, whether tool arguments parse. None
// of it is kept but a short sample for the tokenizer, and that only until the call's
// end.
package content

import (
	"slices"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/llm"
)

// Config switches parts off. The zero value has all on.
type Config struct {
	NoQuality  bool // no Call.Quality
	NoEstimate bool // usage that the provider doesn't state stays missing
}

const (
	// maxTools bounds the names kept in Call.ToolCalls, and the tool calls whose
	// arguments are followed at a time.
	maxTools = 32
	// maxChoices bounds the choices whose text is followed.
	maxChoices = 4
	// keptOutput is how much of the generated text is kept for the tokenizer, in bytes.
	keptOutput = 1 << 10
)

// Signals of quality, the values of Call.Quality.
const (
	SchemaInvalid    = "schema_invalid"    // JSON was asked for, and the text is none
	ArgumentsInvalid = "arguments_invalid" // a tool call's arguments are no JSON
	Length           = "length"            // cut at the limit of tokens
	Refusal          = "refusal"
	Filtered         = "filtered" // by the provider's filter
	Empty            = "empty"    // ended well with no content at all
)

// Meter follows the content of one call. The zero value is ready after Open.
type Meter struct {
	cfg  Config
	c    *llm.Call
	f    *exchange.Facts
	kind exchange.Content // of the event at hand
	some bool             // there was content of any kind

	visible, hidden int64
	output          exchange.Sample
	text            [maxChoices]*Checker
	tools           map[int]*Checker
	signals         []string
}

// Open begins a call. What the request's body says of it is taken over by Asked.
func (m *Meter) Open(cfg Config, f *exchange.Facts, c *llm.Call) {
	*m = Meter{cfg: cfg, f: f, c: c}
}

// Asked copies into the call what the request's body says of any call.
func Asked(f *exchange.Facts, c *llm.Call) {
	if f.Model != "" {
		c.RequestModel = f.Model
	}
	if f.StreamSet {
		c.Stream = f.Stream
	}
	c.Metadata = f.Metadata
	c.Cost.SearchContextSize = f.SearchContext
	c.Cost.ImageSize, c.Cost.ImageQuality = f.ImageSize, f.ImageQuality
}

// Event forgets the last event's kind; Kind then tells the next one's.
func (m *Meter) Event() { m.kind = exchange.NoContent }

// Kind is the most visible content since Event.
func (m *Meter) Kind() exchange.Content { return m.kind }

// Seen notes content of a kind that is not counted: sound, an image, a name.
func (m *Meter) Seen(k exchange.Content) {
	m.kind = max(m.kind, k)
	m.some = m.some || k != exchange.NoContent
}

// Any reports whether the call had any content so far.
func (m *Meter) Any() bool { return m.some }

// Text takes a piece of choice i's visible text.
func (m *Meter) Text(i int, piece []byte) {
	if len(piece) == 0 {
		return
	}
	m.Seen(exchange.Visible)
	m.visible += int64(len(piece))
	m.sample(piece)
	if m.f.JSONSchema && !m.cfg.NoQuality && i >= 0 && i < maxChoices {
		if m.text[i] == nil {
			m.text[i] = new(Checker)
		}
		m.text[i].Write(piece)
	}
}

// Unread counts visible content of the given length in bytes that is not followed.
func (m *Meter) Unread(length int64) {
	m.Seen(exchange.Visible)
	m.visible += length
	m.output.Bytes += length
}

// Reasoning takes a piece of thinking.
func (m *Meter) Reasoning(piece []byte) {
	if len(piece) == 0 {
		return
	}
	m.Seen(exchange.Hidden)
	m.hidden += int64(len(piece))
	m.sample(piece)
}

// Tool notes that the model called a tool.
func (m *Meter) Tool(name string) {
	if name == "" {
		return
	}
	m.Seen(exchange.Visible)
	m.visible += int64(len(name))
	if len(m.c.ToolCalls) < maxTools {
		m.c.ToolCalls = append(m.c.ToolCalls, name)
	}
}

// Arguments takes a piece of the arguments of tool call i, as the JSON text they are.
func (m *Meter) Arguments(i int, piece []byte) {
	if len(piece) == 0 {
		return
	}
	m.Seen(exchange.Visible)
	m.visible += int64(len(piece))
	m.sample(piece)
	if m.cfg.NoQuality {
		return
	}
	c := m.tools[i]
	if c == nil {
		if len(m.tools) == maxTools {
			return
		}
		if m.tools == nil {
			m.tools = make(map[int]*Checker)
		}
		c = new(Checker)
		m.tools[i] = c
	}
	c.Write(piece)
}

// ToolEnd says that tool call i's arguments are whole.
func (m *Meter) ToolEnd(i int) {
	if c := m.tools[i]; c != nil {
		if c.Result() == Invalid {
			m.Signal(ArgumentsInvalid)
		}
		delete(m.tools, i)
	}
}

// Signal notes one of the signals of quality.
func (m *Meter) Signal(s string) {
	if !m.cfg.NoQuality && !slices.Contains(m.signals, s) {
		m.signals = append(m.signals, s)
	}
}

// sample counts generated text and keeps the first of it.
func (m *Meter) sample(piece []byte) {
	m.output.Bytes += int64(len(piece))
	if room := keptOutput - len(m.output.Kept); room > 0 && !m.cfg.NoEstimate {
		m.output.Kept = append(m.output.Kept, piece[:min(room, len(piece))]...)
	}
}

// finishes are the providers' words for ends that say something about quality.
var finishes = map[string]string{
	"length": Length, "max_tokens": Length, "MAX_TOKENS": Length, "max_output_tokens": Length,
	"model_context_window_exceeded": Length, "LENGTH": Length,
	"content_filter": Filtered, "content_filtered": Filtered, "SAFETY": Filtered, "RECITATION": Filtered,
	"BLOCKLIST": Filtered, "PROHIBITED_CONTENT": Filtered, "SPII": Filtered, "IMAGE_SAFETY": Filtered,
	"MODEL_ARMOR": Filtered, "guardrail_intervened": Filtered, "ERROR_TOXIC": Filtered,
	"refusal": Refusal,
}

// End settles quality; whole says that the response was seen to its end. Call it
// when the call's finish reasons and usage are set.
func (m *Meter) End(whole bool) {
	c := m.c
	if !m.cfg.NoQuality {
		m.quality(whole)
		c.Quality = m.signals
	}
	if !m.cfg.NoEstimate && !c.Usage.HasTokens() {
		m.estimate()
	}
	m.output.Kept = nil
	m.f.Text.Kept = nil
}

func (m *Meter) quality(whole bool) {
	c := m.c
	for _, reason := range c.FinishReasons {
		if s := finishes[reason]; s != "" {
			m.Signal(s)
		}
	}
	failed := c.Status >= 400 || c.InBandError
	if !whole || failed || slices.Contains(m.signals, Length) {
		return // text that breaks off is no JSON, and that is no news
	}
	for i := range m.tools {
		if m.tools[i].Result() == Invalid {
			m.Signal(ArgumentsInvalid)
		}
	}
	plain := len(c.ToolCalls) == 0 && !slices.Contains(m.signals, Refusal) && !slices.Contains(m.signals, Filtered)
	for _, t := range m.text {
		if t != nil && plain && t.Result() == Invalid {
			m.Signal(SchemaInvalid)
		}
	}
	if c.Operation == "chat" && len(c.FinishReasons) > 0 && plain && !m.some {
		m.Signal(Empty)
	}
}
