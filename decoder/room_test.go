package decoder

import (
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// TestRoom opens streams with heads that take two bytes of the wire for a field, on
// many connections: what is held stays within its room, what had been quiet longest is
// given up and says so, and what was asked last is answered.
func TestRoom(t *testing.T) {
	noLeak(t)
	const room, conns = 4 << 20, 16
	r := newRig(t, func(c *Config) { c.MaxOpen = room })
	fields := []string{":method", "POST", ":path", "/echo", ":scheme", "http", ":authority", "x"}
	for range 1800 {
		fields = append(fields, "a", "b")
	}
	c := newH2()
	c.WriteString(http2.ClientPreface)
	c.WriteSettings()
	for id := range 255 {
		c.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*id + 1), BlockFragment: c.block(fields...), EndHeaders: true})
	}
	wire := []byte(c.take())
	evicted := 0
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range conns {
		r.conn.Key, r.pos = uint64(i), [2]uint64{}
		for b := range slices.Chunk(wire, 16<<10) {
			r.Push(r.data(flow.Write, b))
			if r.held > room {
				t.Fatalf("%d bytes are held, there is room for %d", r.held, room)
			}
		}
		for _, c := range r.calls {
			if c.Partial != llm.PartialLost || c.ErrorType != "" || c.Completeness == llm.Exact {
				t.Fatalf("an evicted call: %v, %q, %q", c.Completeness, c.Partial, c.ErrorType)
			}
		}
		evicted += len(r.calls)
		r.calls = nil
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2*room {
		t.Errorf("%d MiB of the wire hold %d MiB, there is room for %d", conns*len(wire)>>20, grown>>20, room>>20)
	}
	s := newH2()
	s.WriteSettings()
	last := uint32(2*254 + 1)
	s.WriteHeaders(http2.HeadersFrameParam{StreamID: last, BlockFragment: s.block(":status", "200", "content-type", "application/json"), EndHeaders: true})
	s.WriteData(last, true, []byte(`{"usage":7}`))
	c.WriteData(last, true, []byte(askUnary))
	r.push(flow.Write, c.take())
	r.push(flow.Read, s.take())
	st := r.Stats()
	if answered := r.calls[len(r.calls)-1]; answered.Completeness != llm.Exact || answered.Partial != "" {
		t.Errorf("the last: %v, %q", answered.Completeness, answered.Partial)
	}
	if st.EvictedOpen == 0 || evicted+1+st.Exchanges != conns*255 || st.Connections != conns || st.Failures["head_cut"] != conns*255 {
		t.Errorf("%d calls were given up, %+v", evicted, st)
	}
	r.check()
	r.Close()
}

// TestRoomHTTP1: the same on HTTP/1, where each connection has one call open. What
// nobody needs holds little.
func TestRoomHTTP1(t *testing.T) {
	noLeak(t)
	const room = 1 << 20
	r := newRig(t, func(c *Config) { c.MaxOpen = room })
	for i := range 500 {
		r.conn.Key, r.pos = uint64(i), [2]uint64{}
		r.push(flow.Write, post("/other", askUnary, "X-Long: "+strings.Repeat("x", 32<<10)))
		if i == 99 && (r.Stats().Exchanges != 100 || r.Stats().EvictedOpen != 0) {
			t.Fatalf("exchanges that nobody needs: %+v", r.Stats())
		}
	}
	for i := range 100 {
		r.conn.Key, r.pos = uint64(1000+i), [2]uint64{}
		r.push(flow.Write, post("/echo", askUnary, "X-Long: "+strings.Repeat("x", 32<<10)))
	}
	r.check()
	r.push(flow.Read, reply(`{"usage":7}`))
	st := r.Stats()
	if last := r.calls[len(r.calls)-1]; last.Completeness != llm.Exact || last.Partial != "" {
		t.Errorf("the last: %v, %q", last.Completeness, last.Partial)
	}
	if r.held > room || st.EvictedOpen == 0 || len(r.calls)+st.Exchanges != 100 || r.calls[0].Partial != llm.PartialLost || r.calls[0].ErrorType != "" {
		t.Errorf("%d calls, %d bytes, %+v", len(r.calls), r.held, st)
	}
	r.Close()
	r.check()
}

// TestManyFields: of a head with very many fields the first are kept and those that the
// framing needs, on either version of HTTP and however it crosses.
func TestManyFields(t *testing.T) {
	noLeak(t)
	many := []string{"X-First: 1"}
	for range 1000 {
		many = append(many, "a: b")
	}
	c, s := newH2(), newH2()
	c.WriteString(http2.ClientPreface)
	c.WriteSettings()
	s.WriteSettings()
	ask := []string{":method", "POST", ":path", "/echo", ":authority", "api.example.com", "content-type", "application/json", "x-first", "1"}
	answer := []string{":status", "200", "content-type", "application/json"}
	for range 1000 {
		ask, answer = append(ask, "a", "b"), append(answer, "a", "b")
	}
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block(ask...), EndHeaders: true})
	c.WriteData(1, true, []byte(askUnary))
	s.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: s.block(answer...), EndHeaders: true})
	s.WriteData(1, true, []byte(`{"usage":5}`))
	for name, m := range map[string][]message{
		"HTTP/1": {{flow.Write, post("/echo", askUnary, many...)}, {flow.Read, reply(`{"usage":5}`, many...)}},
		"HTTP/2": {{flow.Write, c.take()}, {flow.Read, s.take()}},
	} {
		for how, size := range map[string]int{"whole": 1 << 20, "byte by byte": 1} {
			r := newRig(t, func(c *Config) { c.AllowHeaders = []string{"X-First", "A"} })
			for _, m := range split(m, nil, size) {
				r.push(m.dir, m.bytes)
			}
			r.check()
			got := r.one()
			if n := strings.Count(got.Headers["a"], "b"); got.Completeness != llm.Exact || got.Headers["x-first"] != "1" || n < 200 || n > 256 || got.RequestBytes != int64(len(askUnary)) {
				t.Errorf("%s, %s: %v, %d bytes, %d of 1000 fields, %v", name, how, got.Completeness, got.RequestBytes, n, got.Headers)
			}
			if n := r.Stats().Failures["head_cut"]; n != 2 {
				t.Errorf("%s, %s: %v", name, how, r.Stats().Failures)
			}
		}
	}
}
