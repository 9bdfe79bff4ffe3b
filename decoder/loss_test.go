package decoder

import (
	"bytes"
	"compress/gzip"
	"strings"
	"testing"
	"time"

	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// TestCutAtEveryByte ends the connection after every byte of a call: the record says
// that it was cut, and its usage is exact only once nothing could follow it.
func TestCutAtEveryByte(t *testing.T) {
	noLeak(t)
	ask := post("/echo", askStream)
	answer := streamHead + event(`{"text":"a"}`) + event(`{"usage":1}`) + event(`{"text":"b"}`) + event(`{"usage":4}`) + event(`[DONE]`) + lastChunk
	done := strings.Index(answer, "[DONE]\n\n") + len("[DONE]\n\n")
	for n := range len(ask) + len(answer) + 1 {
		r := newRig(t)
		r.push(flow.Write, ask[:min(n, len(ask))])
		if n > len(ask) {
			r.push(flow.Read, answer[:n-len(ask)])
		}
		r.end(flow.KindClose, flow.Write)
		r.check()
		if n < strings.Index(ask, "\r\n\r\n")+4 {
			if len(r.calls) != 0 {
				t.Fatalf("cut at %d: a call without a head", n)
			}
			continue
		}
		c := r.one()
		whole := n >= len(ask)+done
		if whole != (c.Partial == llm.PartialNone) || whole != (c.Completeness == llm.Exact) || whole != (c.ErrorType == "") {
			t.Fatalf("cut at %d of %d+%d: %q %v %q", n, len(ask), len(answer), c.Partial, c.Completeness, c.ErrorType)
		}
		if usage := c.Usage.Get(llm.Output); c.Completeness == llm.Exact && usage != 4 {
			t.Fatalf("cut at %d: exactly %v", n, usage)
		}
		if c.Completeness == llm.Estimated && c.UsageSource != llm.SourceStreamPartial {
			t.Fatalf("cut at %d: %v from %q", n, c.Completeness, c.UsageSource)
		}
	}
	body := `{"text":"hello","usage":5}`
	for n := range reply(body) {
		r := newRig(t)
		r.push(flow.Write, post("/echo", askUnary))
		r.push(flow.Read, reply(body)[:n])
		r.end(flow.KindEOF, flow.Read)
		if c := r.one(); c.Partial != llm.PartialCut || c.Completeness == llm.Exact || c.ErrorType != "cut" {
			t.Fatalf("unary cut at %d: %q %v %q", n, c.Partial, c.Completeness, c.ErrorType)
		}
	}
}

// TestHoleEverywhere loses a stretch of the answer at every place. The call is labelled,
// nothing is exact, and the next exchange on the connection is whole.
func TestHoleEverywhere(t *testing.T) {
	noLeak(t)
	for name, answer := range map[string]string{
		"length":  reply(`{"text":"hello world","usage":5}`),
		"chunked": streamHead + event(`{"text":"a"}`) + event(`{"usage":4}`) + event("[DONE]") + lastChunk,
	} {
		head := strings.Index(answer, "\r\n\r\n") + 4
		for from := range len(answer) - 8 {
			r := newRig(t)
			r.number = 1
			r.push(flow.Write, post("/echo", askStream))
			r.push(flow.Read, answer[:from])
			r.lose(flow.Read, 7, flow.GapRingFull, answer[from+7:])
			r.number = 2
			r.push(flow.Write, post("/echo", askUnary))
			r.push(flow.Read, reply(`{"text":"next","usage":2}`))
			r.Close()
			r.check()
			if len(r.calls) != 2 {
				t.Fatalf("%s, hole at %d: %d calls", name, from, len(r.calls))
			}
			c, next := r.calls[0], r.calls[1]
			done := strings.Index(answer, "[DONE]\n\n")
			if c.Partial != llm.PartialLost || c.Completeness == llm.Exact && (done < 0 || from < done+8) {
				t.Fatalf("%s, hole at %d: %q %v", name, from, c.Partial, c.Completeness)
			}
			if from > head && c.LostBytes != 7 {
				t.Fatalf("%s, hole at %d: %d lost", name, from, c.LostBytes)
			}
			if next.ResponseModel != "next" || next.Completeness != llm.Exact || next.Partial != "" {
				t.Fatalf("%s, hole at %d: next %q %v %q", name, from, next.ResponseModel, next.Completeness, next.Partial)
			}
		}
	}
}

// TestHoleInRequest: what the provider said stays exact; the record says it isn't whole.
func TestHoleInRequest(t *testing.T) {
	ask := post("/echo", `{"model":"echo","prompt":"a long prompt"}`)
	for name, reason := range map[llm.Partial]flow.GapReason{
		llm.PartialLost: flow.GapFault, llm.PartialOverLimit: flow.GapOverLimit,
	} {
		r := newRig(t)
		r.push(flow.Write, ask[:len(ask)-20])
		r.lose(flow.Write, 15, reason, ask[len(ask)-5:])
		r.push(flow.Read, reply(`{"usage":5}`))
		if c := r.one(); c.Partial != name || c.LostBytes != 15 || c.Completeness != llm.Exact || c.RequestBytes != 41 {
			t.Errorf("%q %d %v %d", c.Partial, c.LostBytes, c.Completeness, c.RequestBytes)
		}
	}
}

// TestOverLimit: the kernel stops in the middle of both bodies; the hole is told with
// the next exchange's bytes.
func TestOverLimit(t *testing.T) {
	r := newRig(t)
	ask, answer := post("/echo", `{"model":"`+strings.Repeat("m", 1000)+`"}`), reply(`{"usage":5,"text":"`+strings.Repeat("x", 1000)+`"}`)
	r.push(flow.Write, ask[:500])
	r.push(flow.Read, answer[:500])
	if len(r.calls) != 0 {
		t.Fatal("too early")
	}
	r.number = 2
	r.lose(flow.Write, len(ask)-500, flow.GapOverLimit, post("/echo", askUnary))
	r.lose(flow.Read, len(answer)-500, flow.GapOverLimit, reply(`{"text":"next","usage":1}`))
	r.Close()
	if len(r.calls) != 2 {
		t.Fatalf("%d calls", len(r.calls))
	}
	c, next := r.calls[0], r.calls[1]
	if c.Partial != llm.PartialOverLimit || c.Completeness == llm.Exact || c.ResponseBytes != 1021 {
		t.Errorf("%q %v %d", c.Partial, c.Completeness, c.ResponseBytes)
	}
	if next.Partial != "" || next.Completeness != llm.Exact || next.ResponseModel != "next" {
		t.Errorf("next: %+v", next)
	}
}

// TestOverLimitAtOnce: the record of a prompt over the limit says so although the
// kernel tells of the rest only with the next one.
func TestOverLimitAtOnce(t *testing.T) {
	noLeak(t)
	r := newRig(t, func(c *Config) { c.BodyLimit = 1000 })
	ask := post("/echo", `{"model":"`+strings.Repeat("m", 2000)+`"}`)
	r.push(flow.Write, ask[:1000])
	r.push(flow.Read, reply(`{"usage":5}`))
	if len(r.calls) != 0 {
		t.Fatal("the rest of the request was not waited for")
	}
	r.Tick(r.now + flow.Time(time.Second))
	c := r.one()
	if c.Partial != llm.PartialOverLimit || c.Completeness != llm.Exact || c.ErrorType != "" {
		t.Errorf("%q %v %q", c.Partial, c.Completeness, c.ErrorType)
	}

	r = newRig(t, func(c *Config) { c.BodyLimit = 1000 })
	r.push(flow.Write, post("/echo", askUnary))
	r.push(flow.Read, reply(`{"usage":5,"text":"` + strings.Repeat("x", 2000) + `"}`)[:1000])
	r.end(flow.KindClose, flow.Write)
	if c := r.one(); c.Partial != llm.PartialOverLimit || c.Completeness == llm.Exact || c.ErrorType != "" {
		t.Errorf("%q %v %q", c.Partial, c.Completeness, c.ErrorType)
	}
}

// TestStreamGoesOnAfterHole: the final usage behind a hole is read, and no more than an
// estimate, because nobody knows what else was in the hole.
func TestStreamGoesOnAfterHole(t *testing.T) {
	noLeak(t)
	r := newRig(t)
	r.push(flow.Write, post("/echo", askStream))
	r.push(flow.Read, streamHead+event(`{"text":"a"}`))
	long := event(`{"text":"` + strings.Repeat("b", 100) + `"}`)
	r.push(flow.Read, long[:40])
	r.lose(flow.Read, 30, flow.GapRingFull, long[70:])
	r.push(flow.Read, event(`{"text":"c"}`))
	r.push(flow.Read, event(`{"usage":7}`)+event("[DONE]")+lastChunk)
	c := r.one()
	if c.Usage.Get(llm.Output) != 7 || c.Completeness != llm.Estimated || c.UsageSource != llm.SourceStreamPartial ||
		c.Partial != llm.PartialLost || c.LostBytes != 30 || c.ResponseModel != "ac" || c.Times.Chunks != 2 {
		t.Errorf("%s, %d chunks", essence(r.calls), c.Times.Chunks)
	}
}

func TestResponseBeforeItsRequest(t *testing.T) {
	noLeak(t)
	r := newRig(t)
	answer, ask := r.data(flow.Read, []byte(reply(`{"text":"x","usage":1}`))), r.data(flow.Write, []byte(post("/echo", askUnary)))
	r.Push(answer)
	r.Push(ask)
	if len(r.calls) != 1 || r.calls[0].Completeness != llm.Exact {
		t.Fatalf("%d calls", len(r.calls))
	}
	// The next one's request never comes; the one after that is whole.
	r.push(flow.Read, reply(`{"text":"orphan"}`))
	r.Tick(r.now + flow.Time(time.Second))
	r.push(flow.Write, post("/echo", askUnary))
	r.push(flow.Read, reply(`{"text":"last","usage":1}`))
	r.Close()
	if len(r.calls) != 2 || r.calls[1].ResponseModel != "last" || r.Stats().Failures["orphan_response"] != 1 {
		t.Fatalf("%d calls, %v", len(r.calls), r.Stats().Failures)
	}
}

func TestReordered(t *testing.T) {
	noLeak(t)
	r := newRig(t)
	var data []*flow.Data
	for _, m := range split([]message{{flow.Write, post("/echo", askUnary)}, {flow.Read, reply(`{"text":"x","usage":1}`)}}, nil, 10) {
		data = append(data, r.data(m.dir, []byte(m.bytes)))
	}
	for i := 0; i+1 < len(data); i += 2 {
		data[i], data[i+1] = data[i+1], data[i]
	}
	for _, d := range data {
		r.Push(d)
		r.Push(d) // and twice
		r.check()
	}
	c := r.one()
	if c.Completeness != llm.Exact || c.Partial != "" || r.Stats().Duplicate == 0 {
		t.Errorf("%v %q, %d duplicate", c.Completeness, c.Partial, r.Stats().Duplicate)
	}
}

// TestNeverCame gives up a jump that nobody explains after the hold time.
func TestNeverCame(t *testing.T) {
	r := newRig(t)
	answer := reply(`{"text":"` + strings.Repeat("x", 100) + `","usage":1}`)
	r.push(flow.Write, post("/echo", askUnary))
	r.push(flow.Read, answer[:120])
	r.pos[flow.Read] += 10
	r.push(flow.Read, answer[130:])
	r.Tick(r.now + flow.Time(50*time.Millisecond))
	if len(r.calls) != 0 {
		t.Fatal("given up too early")
	}
	r.Tick(r.now + flow.Time(101*time.Millisecond))
	if len(r.calls) != 1 || r.calls[0].Partial != llm.PartialLost || r.calls[0].LostBytes != 10 || r.Stats().Lost[flow.GapReorder] != 10 {
		t.Errorf("%d calls, %+v", len(r.calls), r.Stats())
	}
	r.Close()
}

func TestVerdicts(t *testing.T) {
	noLeak(t)
	r := newRig(t)
	r.number = 1
	r.push(flow.Write, post("/upload", strings.Repeat("x", 50))) // by its head
	if len(r.verdicts) != 1 {
		t.Fatalf("%v", r.verdicts)
	}
	r.number = 2 // the rest of both bodies was held back
	r.lose(flow.Write, 1000, flow.GapIgnored, post("/maybe", `{"model":"other"}`))
	if len(r.verdicts) != 2 {
		t.Fatalf("%v", r.verdicts)
	}
	r.number = 3
	r.push(flow.Write, post("/echo", askUnary))
	r.lose(flow.Read, 5000, flow.GapIgnored, reply(`{"text":"x","usage":1}`))
	c := r.one()
	if strings.Join(r.verdicts, " ") != "1:1 2:1" || c.Partial != "" || c.LostBytes != 0 || c.Completeness != llm.Exact || len(r.Stats().Failures) > 0 {
		t.Errorf("%v, %+v, %v", r.verdicts, c, r.Stats().Failures)
	}
	r.number = 4 // a stream has no limit
	r.push(flow.Write, post("/echo", askStream))
	r.push(flow.Read, streamHead+event("{}"))
	if strings.Join(r.verdicts, " ") != "1:1 2:1 4:3" {
		t.Errorf("%v", r.verdicts)
	}
	r.Close()
}

func TestNotHTTP(t *testing.T) {
	noLeak(t)
	for name, first := range map[string]string{
		"tls": "\x16\x03\x01\x02\x00", "ssh": "SSH-2.0-x\r\n", "nats": "CONNECT {\"verbose\":false}\r\n\r\n",
		"postgres": "\x00\x00\x00\x08\x04\xd2\x16\x2f", "redis": "*1\r\n$4\r\nPING\r\n",
	} {
		r := newRig(t)
		r.push(flow.Write, first)
		r.push(flow.Read, "more\r\n")
		r.push(flow.Write, strings.Repeat("x", 1000))
		if name != "nats" && (len(r.verdicts) != 1 || r.verdicts[0] != "0:2") {
			t.Errorf("%s: %v", name, r.verdicts)
		}
		r.check()
		r.Close()
	}
}

func TestUpgradeIsLeftAlone(t *testing.T) {
	noLeak(t)
	for _, head := range [][2]string{
		{"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"},
		{"CONNECT api:443 HTTP/1.1\r\nHost: api:443\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"},
	} {
		r := newRig(t)
		r.push(flow.Write, head[0])
		r.push(flow.Read, head[1]+"\x81\x05hello")
		r.push(flow.Write, "POST /echo HTTP/1.1\r\n\r\n")
		if len(r.calls) > 0 || r.verdicts[len(r.verdicts)-1] != "0:2" {
			t.Errorf("%d calls, %v", len(r.calls), r.verdicts)
		}
		r.Close()
		r.check()
	}
}

func TestLateJoin(t *testing.T) {
	noLeak(t)
	r := newRig(t)
	late := func(d *flow.Data) { d.Late = true; r.Push(d) }
	r.pos = [2]uint64{9000, 70000}
	late(r.data(flow.Read, []byte("the rest of some response {\"usage\":3}")))
	late(r.data(flow.Write, []byte("the rest of a request")))
	late(r.data(flow.Write, []byte(post("/echo", askUnary))))
	late(r.data(flow.Read, []byte(reply(`{"text":"x","usage":1}`))))
	r.push(flow.Write, post("/echo", askUnary))
	r.push(flow.Read, reply(`{"text":"x","usage":1}`))
	r.Close()
	r.check()
	if len(r.calls) != 2 {
		t.Fatalf("%d calls, want 2", len(r.calls))
	}
	for i, want := range []llm.Partial{llm.PartialLateAttach, llm.PartialNone} {
		if c := r.calls[i]; c.Completeness != llm.Exact || c.Partial != want || c.Role != llm.RoleClient {
			t.Errorf("call %d: %+v", i, c)
		}
	}
}

func TestIdleAndEvicted(t *testing.T) {
	noLeak(t)
	r := newRig(t, func(c *Config) { c.IdleTimeout = time.Minute; c.MaxConnections = 3 })
	for i := range 5 {
		r.conn.Key, r.pos = uint64(i), [2]uint64{}
		r.push(flow.Write, post("/echo", askUnary))
	}
	if s := r.Stats(); s.Evicted != 2 || len(r.calls) != 2 || r.calls[0].ErrorType != "" || r.calls[0].Partial != llm.PartialLost || s.Connections != 3 || s.Exchanges != 3 {
		t.Fatalf("%+v, %d calls", s, len(r.calls))
	}
	r.Tick(r.now + flow.Time(2*time.Minute))
	if len(r.calls) != 5 || r.calls[4].ErrorType != "timeout" || r.calls[4].Partial != llm.PartialCut || r.Stats().Connections != 0 {
		t.Errorf("%d calls, %+v", len(r.calls), r.calls[4])
	}
}

func TestExit(t *testing.T) {
	noLeak(t)
	r := newRig(t)
	for i := range 3 {
		r.conn.Key, r.pos = uint64(i), [2]uint64{}
		r.push(flow.Write, post("/echo", askUnary))
	}
	r.conn.Key = 99
	r.end(flow.KindExit, 0)
	if len(r.calls) != 3 || r.Stats().Connections != 0 {
		t.Errorf("%d calls", len(r.calls))
	}
}

func TestVendorPanics(t *testing.T) {
	noLeak(t)
	r := newRig(t)
	r.push(flow.Write, post("/echo", askStream))
	r.push(flow.Read, streamHead+event(`{"usage":1}`)+event(`{"panic":true}`)+event("[DONE]")+lastChunk)
	r.push(flow.Write, post("/echo", askUnary))
	r.push(flow.Read, reply(`{"usage":2}`))
	r.Close()
	if len(r.calls) != 2 || r.calls[0].Partial != llm.PartialLost || r.calls[0].Completeness == llm.Exact ||
		r.calls[1].Completeness != llm.Exact || r.Stats().Failures["panic"] != 1 {
		t.Errorf("%d calls, %v", len(r.calls), r.Stats().Failures)
	}
}

// TestFramingPanics: a bug outside of the vendors costs one connection.
func TestFramingPanics(t *testing.T) {
	noLeak(t)
	r := newRig(t, func(c *Config) { c.Verdict = func(flow.Conn, uint32, flow.Verdict) { panic("as told") } })
	r.push(flow.Write, post("/echo", askUnary)+post("/other", "{}"))
	r.push(flow.Read, reply(`{"usage":2}`))
	if len(r.calls) != 1 || r.calls[0].Partial != llm.PartialLost || r.Stats().Failures["panic"] != 1 {
		t.Errorf("%s, %v", essence(r.calls), r.Stats().Failures)
	}
	r.conn.Key, r.pos = 99, [2]uint64{}
	r.push(flow.Write, post("/echo", askUnary))
	r.push(flow.Read, reply(`{"usage":2}`))
	r.Close()
	r.check()
	if len(r.calls) != 2 || r.calls[1].Completeness != llm.Exact {
		t.Errorf("%s", essence(r.calls))
	}
}

func TestHeadOverLimit(t *testing.T) {
	noLeak(t)
	r := newRig(t)
	r.push(flow.Write, "POST /echo HTTP/1.1\r\nX: "+strings.Repeat("x", 70<<10))
	r.push(flow.Write, "\r\n\r\n")
	r.push(flow.Write, post("/echo", askUnary))
	r.push(flow.Read, reply(`{"usage":2}`))
	if c := r.one(); c.Completeness != llm.Exact || r.Stats().Failures["request_head"] != 1 {
		t.Errorf("%+v, %v", c, r.Stats().Failures)
	}
}

// TestOddHeads: what net/http refuses and real programs send.
func TestOddHeads(t *testing.T) {
	for _, head := range []string{
		"POST /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 16\r\n\r\n",
		"POST /echo HTTP/1.1\r\nHost: a\r\nBad Name: x\r\nContent-Length: 16\r\n\r\n",
		"POST /echo HTTP/1.1\r\nHost: a\r\nX-Bad: \x01\x02\r\nno colon\r\nContent-Length: 16\r\n\r\n",
		"POST /echo?a=%zz%\x7f HTTP/1.1\r\nHost: a\r\nContent-Length: 16\r\nContent-Length: 16\r\n\r\n",
		"\r\n\r\nPOST http://a/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 16\r\n\r\n",
		"POST /echo HTTP/1.0\r\nContent-Length: 16\r\n\r\n",
	} {
		r := newRig(t)
		r.push(flow.Write, head+askUnary)
		r.push(flow.Read, "HTTP/1.1 200\r\nBad Name: x\r\nContent-Length: 11\r\n\r\n"+`{"usage":2}`)
		r.Close()
		if len(r.calls) != 1 || r.calls[0].Completeness != llm.Exact || r.calls[0].Path != "/echo" {
			t.Errorf("%q: %d calls, %v", head, len(r.calls), r.Stats().Failures)
		}
	}
}

func TestEncodedBothWays(t *testing.T) {
	zip := func(s string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Write([]byte(s))
		w.Close()
		return b.String()
	}
	ask := post("/maybe", zip(askUnary), "Content-Encoding: gzip")
	answer := reply(zip(`{"text":"x","usage":1}`), "Content-Encoding: gzip")
	for _, size := range []int{1, 1 << 20} {
		r := newRig(t)
		for _, m := range split([]message{{flow.Write, ask}, {flow.Read, answer}}, nil, size) {
			r.push(m.dir, m.bytes)
		}
		if c := r.one(); c.Completeness != llm.Exact || c.RequestModel != "echo" || c.ResponseModel != "x" {
			t.Errorf("%+v", c)
		}
	}
}
