package decoder

import (
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// clock keeps the moments of a response's content.
type clock struct {
	t       llm.Times
	lastAny flow.Time
}

// bytes notes the first byte of the body.
func (k *clock) bytes(at flow.Time) {
	if k.t.FirstChunk == 0 {
		k.t.FirstChunk = at
	}
}

// event notes an event that the vendor has read. Events that came in one read share
// its time; between them is no gap to speak of, and Shared says how many they were.
func (k *clock) event(at flow.Time, c exchange.Content) {
	t := &k.t
	if t.AnyChunk > 0 && at > 0 {
		t.AnyGaps.Add(at.Sub(k.lastAny))
	}
	t.AnyChunk++
	k.lastAny = at
	if c == exchange.NoContent {
		return
	}
	if t.Chunks > 0 && at > 0 {
		t.Gaps.Add(at.Sub(t.LastContent))
		if at == t.LastContent {
			t.Shared++
		}
	}
	t.Chunks++
	t.LastContent = at
	if t.FirstContent == 0 {
		t.FirstContent = at
	}
	if c == exchange.Visible && t.FirstVisible == 0 {
		t.FirstVisible = at
	}
}

// stamp copies what was noted into t and leaves the rest of it alone.
func (k *clock) stamp(t *llm.Times) {
	start, reqEnd, firstByte, end := t.Start, t.RequestEnd, t.FirstByte, t.End
	*t = k.t
	t.Start, t.RequestEnd, t.FirstByte, t.End = start, reqEnd, firstByte, end
}
