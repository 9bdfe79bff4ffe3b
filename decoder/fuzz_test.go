package decoder

import (
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// FuzzDecoder plays any records: bytes, holes, jumps, ends, in any order. A record is
// two bytes of flags, one of gap, one of length, and the payload.
func FuzzDecoder(f *testing.F) {
	record := func(dir flow.Dir, s string) (b []byte) {
		for len(s) > 0 {
			n := min(len(s), 255)
			b = append(b, byte(dir), 0, 0, byte(n))
			b, s = append(b, s[:n]...), s[n:]
		}
		return b
	}
	var whole []byte
	for _, m := range transcript() {
		one := record(m.dir, m.bytes)
		whole = append(whole, one...)
		f.Add(one)
	}
	f.Add(whole)
	f.Add(append(record(flow.Write, post("/echo", askStream)), record(flow.Read, streamHead+event(`{"text":"a"}`))...))
	f.Fuzz(func(t *testing.T, in []byte) {
		before := runtime.NumGoroutine()
		r := newRig(t, func(c *Config) { c.MaxHeld = 4096; c.MaxPipelined = 4; c.MaxConnections = 2 })
		for len(in) > 4 {
			flags, gap := binary.LittleEndian.Uint16(in), int(in[2])
			n := min(int(in[3]), len(in)-4)
			d := r.data(flow.Dir(flags&1), in[4:4+n])
			in = in[4+n:]
			d.Head = flags&2 != 0
			d.Late = flags&4 != 0
			r.number += uint32(flags >> 3 & 1)
			r.pos[d.Dir] += uint64(gap)
			d.Pos += uint64(gap)
			if flags&0x10 != 0 {
				d.Gap, d.GapReason = uint64(gap), flow.GapReason(flags>>8)%flow.NumGapReasons
			}
			if flags&0x20 != 0 {
				d.Pos -= min(d.Pos, uint64(flags>>8))
			}
			r.conn.Key = uint64(flags >> 6 & 3)
			switch flags >> 12 {
			case 1:
				d.Kind, d.Payload = flow.KindEOF, nil
			case 2:
				d.Kind, d.Payload = flow.KindClose, nil
			case 3:
				d.Kind, d.Payload = flow.KindExit, nil
			case 4:
				r.Tick(r.now + flow.Time(200*time.Millisecond))
			}
			r.Push(d)
			r.check()
		}
		r.Close()
		r.check()
		if s := r.Stats(); s.Failures["panic"] > 0 || s.Held > 0 || s.Exchanges > 0 || s.Connections > 0 {
			t.Fatalf("%+v", s)
		}
		for i := 0; runtime.NumGoroutine() > before; i++ {
			if i == 1000 {
				t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// FuzzSplit holds that calls do not depend on how the bytes were cut, unless the
// framing broke and had to be found again.
func FuzzSplit(f *testing.F) {
	f.Add(post("/echo", askUnary), reply(`{"usage":1}`), uint64(1))
	f.Add(post("/echo", askStream), streamHead+event(`{"text":"a"}`)+event("[DONE]")+lastChunk, uint64(2))
	for m := transcript(); len(m) > 1; m = m[2:] {
		f.Add(m[0].bytes, m[1].bytes, uint64(3))
	}
	f.Fuzz(func(t *testing.T, ask, answer string, seed uint64) {
		play := func(msgs []message) (*rig, bool) {
			r := newRig(t)
			for _, m := range msgs {
				r.push(m.dir, m.bytes)
			}
			r.end(flow.KindEOF, flow.Read)
			r.end(flow.KindClose, flow.Write)
			broken := len(r.Stats().Failures) > 0 || len(r.verdicts) > 0
			for _, c := range r.calls {
				broken = broken || c.Partial == llm.PartialLost
			}
			return r, broken
		}
		msgs := []message{{flow.Write, ask}, {flow.Read, answer}}
		whole, a := play(msgs)
		pieces, b := play(split(msgs, rand.New(rand.NewPCG(seed, 0)), 1+int(seed%40)))
		if !a && !b && !reflect.DeepEqual(essence(whole.calls), essence(pieces.calls)) {
			t.Errorf("whole %q\nsplit %q", essence(whole.calls), essence(pieces.calls))
		}
	})
}
