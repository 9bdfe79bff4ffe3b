package stream

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"
	"weak"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/flow"
)

// transcribe writes down what a parser sees.
func transcribe(out *strings.Builder) func(*Reader) {
	return func(r *Reader) {
		for {
			w, err := r.Window()
			switch {
			case err == exchange.ErrLost:
				n, reason := r.Hole()
				fmt.Fprintf(out, "<%d %v>", n, reason)
				r.Fill(n)
			case err != nil:
				fmt.Fprintf(out, "|%v", err)
				return
			default:
				out.Write(w)
				r.Discard(len(w))
			}
		}
	}
}

func data(pos int, s string) *flow.Data {
	return &flow.Data{Kind: flow.KindData, Pos: uint64(pos), Payload: []byte(s), Time: 1}
}

func gap(pos, n int, reason flow.GapReason, s string) *flow.Data {
	d := data(pos, s)
	d.Gap, d.GapReason = uint64(n), reason
	return d
}

func eof(pos int) *flow.Data { return &flow.Data{Kind: flow.KindEOF, Pos: uint64(pos), Time: 1} }

func TestOrder(t *testing.T) {
	late := data(500, "late")
	late.Late = true
	for _, c := range []struct {
		name string
		in   []*flow.Data
		want string
	}{
		{"in order", []*flow.Data{data(0, "ab"), data(2, "cd"), eof(4)}, "abcd|EOF"},
		{"reordered", []*flow.Data{data(2, "cd"), data(4, "ef"), data(0, "ab"), eof(6)}, "abcdef|EOF"},
		{"end first", []*flow.Data{eof(4), data(2, "cd"), data(0, "ab")}, "abcd|EOF"},
		{"duplicate", []*flow.Data{data(0, "ab"), data(0, "ab"), data(2, "c"), eof(3)}, "abc|EOF"},
		{"overlap", []*flow.Data{data(0, "abc"), data(1, "bcd"), data(6, "gh"), data(3, "defg"), eof(8)}, "abcdefgh|EOF"},
		{"hole", []*flow.Data{data(0, "ab"), gap(5, 3, flow.GapFault, "fg")}, "ab<3 page_fault>fg"},
		{"hole and reordering", []*flow.Data{gap(7, 3, flow.GapRingFull, "hi"), data(0, "abcd")}, "abcd<3 ring_full>hi"},
		{"held back", []*flow.Data{data(0, "ab"), gap(9, 7, flow.GapIgnored, "x")}, "ab<7 ignored>x"},
		{"hole at the end", []*flow.Data{data(0, "ab"), {Kind: flow.KindEOF, Pos: 5, Gap: 3, GapReason: flow.GapOverLimit}}, "ab<3 over_limit>|EOF"},
		{"late", []*flow.Data{late, data(504, "r")}, "<500 ignored>later"},
		{"waits", []*flow.Data{data(0, "ab"), data(3, "d")}, "ab"},
	} {
		var out strings.Builder
		var n Counters
		p := NewPipe(1<<10, transcribe(&out))
		o := NewOrder(p, Limits{Bytes: 1 << 10, Segments: 8, Wait: time.Second}, &n)
		for _, d := range c.in {
			o.Push(d)
		}
		if got := out.String(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		o.Stop()
		if n.Held != 0 {
			t.Errorf("%s: %d held", c.name, n.Held)
		}
	}
}

func TestWaitIsBounded(t *testing.T) {
	for name, move := range map[string]func(*Order){
		"time":     func(o *Order) { o.Tick(1 + flow.Time(time.Second)) },
		"segments": func(o *Order) { o.Push(data(5, "f")); o.Push(data(7, "h")); o.Push(data(9, "j")) },
		"bytes":    func(o *Order) { o.Push(data(4, strings.Repeat("x", 100))) },
		"close":    func(o *Order) { o.Finish(exchange.ErrCut, 9, 0, 0) },
	} {
		var out strings.Builder
		var n Counters
		o := NewOrder(NewPipe(1<<10, transcribe(&out)), Limits{Bytes: 64, Segments: 3, Wait: time.Second}, &n)
		o.Push(data(0, "ab"))
		o.Push(data(3, "d"))
		o.Tick(1 + flow.Time(time.Second)/2)
		if out.String() != "ab" {
			t.Errorf("%s: gave up at once: %q", name, out.String())
		}
		move(o)
		if !strings.HasPrefix(out.String(), "ab<1 reorder>d") || n.Lost[flow.GapReorder] == 0 {
			t.Errorf("%s: %q", name, out.String())
		}
		o.Stop()
	}
}

func TestAwaitHoldsAndGivesUp(t *testing.T) {
	ready, got := false, ""
	p := NewPipe(8, func(r *Reader) {
		for {
			if _, err := r.Window(); err != nil {
				return
			}
			ok := r.Await(func() bool { return ready })
			w, _ := r.Window()
			got += fmt.Sprintf("%v %s,", ok, w)
			r.Discard(len(w))
		}
	})
	defer p.Stop()
	b := []byte("ab")
	p.Push(Segment{Bytes: b})
	copy(b, "xx") // Push's bytes are its caller's again
	p.Push(Segment{Bytes: []byte("cd")})
	if got != "" || p.Held() != 4 {
		t.Fatalf("%q, %d held", got, p.Held())
	}
	ready = true
	p.Resume()
	if got != "true ab,true cd," || p.Held() != 0 {
		t.Fatalf("%q, %d held", got, p.Held())
	}
	ready = false
	p.Push(Segment{Bytes: []byte("ef")})
	p.Push(Segment{Bytes: []byte("ghijklmnop")}) // over the limit
	if !strings.HasSuffix(got, "false ef,") && !strings.HasSuffix(got, "false ghijklmnop,") {
		t.Fatalf("%q", got)
	}
	p.GiveUp()
	if !strings.HasSuffix(got, "false ghijklmnop,") || p.Held() != 0 {
		t.Fatalf("%q, %d held", got, p.Held())
	}
}

func TestUnread(t *testing.T) {
	var out strings.Builder
	p := NewPipe(8, func(r *Reader) {
		var b []byte
		for range 3 {
			w, _ := r.Window()
			b = append(b, w[0])
			r.Discard(1)
		}
		r.Unread(b, 1)
		r.Window()
		fmt.Fprintf(&out, "%d:", r.Time())
		transcribe(&out)(r)
	})
	p.Push(Segment{Bytes: []byte("a"), Time: 1})
	p.Push(Segment{Bytes: []byte("bcd"), Time: 2})
	p.End(io.EOF, 3)
	p.Stop()
	if out.String() != "1:abcd|EOF" {
		t.Errorf("%q", out.String())
	}
}

func TestPanicIsTheEnd(t *testing.T) {
	p := NewPipe(8, func(r *Reader) { r.Window(); panic("ouch") })
	p.Push(Segment{Bytes: []byte("a")})
	if !p.Done() || p.Err() == nil || p.Push(Segment{Bytes: []byte("b")}) {
		t.Errorf("done %v, %v", p.Done(), p.Err())
	}
	p.Stop()
}

func TestNoGoroutineStays(t *testing.T) {
	before := runtime.NumGoroutine()
	for i := range 100 {
		var out strings.Builder
		p := NewPipe(8, transcribe(&out))
		if i%2 == 0 {
			p.Push(Segment{Bytes: []byte("a")})
		}
		if i%3 == 0 {
			p.End(io.EOF, 0)
		}
		p.Stop()
		p.Stop()
	}
	for i := 0; runtime.NumGoroutine() > before; i++ {
		if i == 1000 {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
		time.Sleep(time.Millisecond)
	}
}

// FuzzOrder pushes a text in any order, with duplicates and confirmed holes; what
// comes out is the text, but for the holes.
func FuzzOrder(f *testing.F) {
	f.Add("hello world, this is a text", uint64(1))
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var in []*flow.Data
		want, hole := []byte(text), 0
		for pos := 0; pos < len(text); {
			n := 1 + rnd.IntN(min(16, len(text)-pos))
			if rnd.IntN(8) == 0 {
				for i := range n {
					want[pos+i] = 0
				}
				hole += n
			} else {
				in = append(in, gap(pos, hole, flow.GapRingFull, text[pos:pos+n]))
				hole = 0
			}
			pos += n
		}
		end := eof(len(text))
		end.Gap, end.GapReason = uint64(hole), flow.GapRingFull
		in = append(in, end)
		for i := range in { // each a little out of place
			j := min(len(in)-1, i+rnd.IntN(4))
			in[i], in[j] = in[j], in[i]
		}
		var got []byte
		var n Counters
		o := NewOrder(NewPipe(1<<20, func(r *Reader) {
			for {
				w, err := r.Window()
				if errors.Is(err, exchange.ErrLost) {
					n, _ := r.Hole()
					got = append(got, make([]byte, n)...)
					r.Fill(n)
				} else if err != nil {
					return
				}
				got = append(got, w...)
				r.Discard(len(w))
			}
		}), Limits{Bytes: 1 << 20, Segments: 1 << 10, Wait: time.Second}, &n)
		for _, d := range in {
			o.Push(d)
			if rnd.IntN(4) == 0 && d.Kind == flow.KindData {
				o.Push(d)
			}
		}
		o.Stop()
		if string(got) != string(want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// TestPayloadIsNotKept holds that what was pushed can be freed, whatever the parser does
// with it.
func TestPayloadIsNotKept(t *testing.T) {
	p := NewPipe(1<<20, func(r *Reader) {
		for {
			w, err := r.Window()
			if err != nil {
				return
			}
			r.Discard(len(w))
		}
	})
	defer p.Stop()
	kept := func() weak.Pointer[[1 << 16]byte] {
		payload := new([1 << 16]byte)
		p.Push(Segment{Bytes: payload[:]})
		return weak.Make(payload)
	}()
	runtime.GC()
	if kept.Value() != nil {
		t.Error("the payload is kept after Push")
	}
}
