package decoder

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

const (
	askUnary  = `{"model":"echo"}`
	askStream = `{"model":"echo","stream":true}`
)

func TestUnary(t *testing.T) {
	noLeak(t)
	r := newRig(t, func(c *Config) {
		c.KeySecret = []byte("k")
		c.AllowHeaders, c.AllowBaggage = []string{"X-Team"}, []string{"node", "tier"}
	})
	r.number = 1
	r.push(flow.Write, post("/echo?x=1", askUnary, "Authorization: Bearer sk-1", "X-Team: red", "X-Other: no",
		"Baggage: token=secret,node=a;p=1, tier=x", "Baggage: tier="+strings.Repeat("x", 2000)+",tier=y,nodes=b",
		"Traceparent: 00-1-2-01", "X-Stainless-Retry-Count: 2", "Idempotency-Key: order-of-jane"))
	r.push(flow.Read, reply(`{"text":"hi","usage":5}`, "X-RateLimit-Remaining: 9", "Retry-After: 1"))
	c := r.one()
	if c.Completeness != llm.Exact || c.Usage.Get(llm.Output) != 5 || c.Partial != "" || c.ErrorType != "" {
		t.Errorf("%+v", c)
	}
	if c.Method != "POST" || c.Path != "/echo" || c.ServerAddress != "api.example.com" || c.ServerPort != 443 ||
		c.Role != llm.RoleClient || c.Status != 200 || c.Source != flow.SourceOpenSSL {
		t.Errorf("%+v", c)
	}
	if len(c.Headers) != 1 || c.Headers["x-team"] != "red" || c.RetryCount != 2 || c.TraceParent != "00-1-2-01" || len(c.APIKey) != 32 {
		t.Errorf("headers %v, retry %d, key %x", c.Headers, c.RetryCount, c.APIKey)
	}
	if c.Baggage != "node=a;p=1, tier=x,tier=y" {
		t.Errorf("baggage %q", c.Baggage)
	}
	if len(c.RetryGroup) != 32 || strings.Contains(c.RetryGroup, "jane") {
		t.Errorf("retry group %q", c.RetryGroup)
	}
	if len(c.RateLimit) != 2 || c.RateLimit["x-ratelimit-remaining"] != "9" {
		t.Errorf("rate limits %v", c.RateLimit)
	}
	ms := flow.Time(time.Millisecond)
	if c.Times.Start != 1000+ms || c.Times.RequestEnd != 1000+ms || c.Times.FirstByte != 1000+2*ms || c.Times.End != 1000+2*ms {
		t.Errorf("times %+v", c.Times)
	}
	if c.RequestBytes != int64(len(askUnary)) || c.ResponseBytes != 23 {
		t.Errorf("bytes %d, %d", c.RequestBytes, c.ResponseBytes)
	}
}

func TestStreamClocks(t *testing.T) {
	noLeak(t)
	r := newRig(t)
	r.push(flow.Write, post("/echo", askStream)) // 1 ms
	r.push(flow.Read, streamHead)                // 2
	r.push(flow.Read, event(`{}`))               // 3
	r.push(flow.Read, event(`{"think":"a"}`))    // 4
	r.push(flow.Read, event(`{"text":"b"}`)+event(`{"text":"c"}`))
	r.push(flow.Read, chunk(`data: {"text":`)) // 6
	r.push(flow.Read, chunk("\"d\"}\n\n"))     // 7
	r.push(flow.Read, event(`{"usage":4}`))    // 8
	r.push(flow.Read, event(`[DONE]`))         // 9
	r.push(flow.Read, lastChunk)               // 10
	c := r.one()
	at := func(ms int) flow.Time { return 1000 + flow.Time(ms)*flow.Time(time.Millisecond) }
	tm := c.Times
	if tm.FirstByte != at(2) || tm.FirstChunk != at(3) || tm.FirstContent != at(4) || tm.FirstVisible != at(5) ||
		tm.LastContent != at(7) || tm.End != at(10) || tm.Chunks != 4 || tm.AnyChunk != 7 || tm.Shared != 1 {
		t.Errorf("%+v", tm)
	}
	if tm.Gaps.N() != 3 || tm.Gaps.Max() != 2*time.Millisecond || tm.AnyGaps.N() != 6 {
		t.Errorf("gaps %d, max %v, any %d", tm.Gaps.N(), tm.Gaps.Max(), tm.AnyGaps.N())
	}
	if c.Completeness != llm.Exact || c.ResponseModel != "bcd" || !c.Stream || c.Partial != "" {
		t.Errorf("%+v", c)
	}
}

// transcript is ten exchanges on one connection, of every shape of HTTP/1.
func transcript() (msgs []message) {
	say := func(d flow.Dir, s string) { msgs = append(msgs, message{d, s}) }
	for i := range 10 {
		switch i {
		case 0:
			say(flow.Write, post("/echo", askUnary))
			say(flow.Read, reply(`{"text":"zero","usage":0}`))
		case 1: // a GET that is none of ours
			say(flow.Write, "GET /index.html HTTP/1.1\r\nHost: x\r\n\r\n")
			say(flow.Read, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
		case 2: // chunked both ways, with an extension and trailers
			say(flow.Write, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"+
				chunk(askStream[:7])+"17;x=y\r\n"+askStream[7:]+"\r\n"+"0\r\nDigest: 1\r\n\r\n")
			say(flow.Read, streamHead+event(`{"text":"two"}`)+event(`{"usage":2}`)+event("[DONE]")+"0\r\nA: b\r\nC: d\r\n\r\n")
		case 3: // HEAD, whose Content-Length has no body
			say(flow.Write, "HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n")
			say(flow.Read, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
		case 4: // 100-continue
			head, body, _ := strings.Cut(post("/echo", askUnary, "Expect: 100-continue"), "\r\n\r\n")
			say(flow.Write, head+"\r\n\r\n")
			say(flow.Read, "HTTP/1.1 100 Continue\r\n\r\n")
			say(flow.Write, body)
			say(flow.Read, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"+reply(`{"text":"four","usage":4}`))
		case 5:
			say(flow.Write, "DELETE /x HTTP/1.1\r\nHost: x\r\n\r\n")
			say(flow.Read, "HTTP/1.1 204 No Content\r\n\r\n")
		case 6: // lines without CR
			say(flow.Write, "POST /echo HTTP/1.1\nHost: x\nContent-Length: 16\n\n"+askUnary)
			say(flow.Read, "HTTP/1.1 200 OK\nContent-Type: application/json\nContent-Length: 24\n\n"+`{"text":"six","usage":6}`)
		case 7: // two in a row before the answers
			say(flow.Write, post("/echo", askUnary)+post("/other", `{}`)+post("/maybe", askUnary))
			say(flow.Read, reply(`{"text":"seven","usage":7}`)+reply(`no`)+reply(`{"text":"maybe","usage":7}`))
		case 8:
			say(flow.Write, post("/echo", askUnary))
			say(flow.Read, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n")
		case 9: // to the end of the connection
			say(flow.Write, post("/echo", askUnary))
			say(flow.Read, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"+`{"text":"nine","usage":9}`)
		}
	}
	return msgs
}

// TestRateLimits: what is kept of them is bounded, the same each time, and whole.
func TestRateLimits(t *testing.T) {
	fields := func(n, size int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprintf("X-RateLimit-%02d: %s", n-1-i, strings.Repeat("9", size)))
		}
		return all
	}
	for name, x := range map[string]struct {
		header []string
		kept   int
		cut    uint64
	}{
		"as ever":        {fields(12, 10), 12, 0},
		"many":           {fields(40, 1), 32, 1},
		"long":           {fields(10, 1000), 4, 1},
		"one too long":   {append(fields(3, 10), "X-RateLimit-00a: "+strings.Repeat("9", 5000)), 3, 1},
		"no UTF-8":       {[]string{"X-RateLimit-0: " + strings.Repeat("\xff", 1365)}, 1, 0},
		"no UTF-8, long": {[]string{"X-RateLimit-0: " + strings.Repeat("\xff9", 1365)}, 0, 1},
	} {
		for how, size := range map[string]int{"whole": 1 << 20, "byte by byte": 1} {
			r := newRig(t)
			for _, m := range split([]message{{flow.Write, post("/echo", askUnary)}, {flow.Read, reply(`{"usage":5}`, x.header...)}}, nil, size) {
				r.push(m.dir, m.bytes)
			}
			c := r.one()
			bytes, first := 0, true
			for k, v := range c.RateLimit {
				bytes += len(k) + len(v)
				first = first && k <= fmt.Sprintf("x-ratelimit-%02d", x.kept-1) && utf8.ValidString(v)
			}
			if len(c.RateLimit) != x.kept || bytes > 4<<10 || !first || r.Stats().Failures["rate_limits_cut"] != x.cut {
				t.Errorf("%s, %s: %d fields, %d bytes, %v", name, how, len(c.RateLimit), bytes, r.Stats().Failures)
			}
		}
	}
}

// essence is what must not depend on how bytes were split.
func essence(calls []*llm.Call) (out []string) {
	for _, c := range calls {
		n, _ := c.Usage.OutputTotal()
		out = append(out, fmt.Sprintf("%s %s %d %s %v %v %q %q %d/%d", c.Method, c.Path, c.Status, c.ResponseModel, n,
			c.Completeness, c.Partial, c.ErrorType, c.RequestBytes, c.ResponseBytes))
	}
	return out
}

func TestTranscriptHoweverSplit(t *testing.T) {
	noLeak(t)
	want := []string{
		`POST /echo 200 zero 0 exact "" "" 16/25`,
		`POST /echo 200 two 2 exact "" "" 30/55`,
		`POST /echo 200 four 4 exact "" "" 16/25`,
		`POST /echo 200 six 6 exact "" "" 16/24`,
		`POST /echo 200 seven 7 exact "" "" 16/26`,
		`POST /maybe 200 maybe 7 exact "" "" 16/26`,
		`POST /echo 304  0 missing "" "" 16/0`,
		`POST /echo 200 nine 9 exact "" "" 16/25`,
	}
	play := func(name string, msgs []message, server bool) {
		t.Helper()
		r := newRig(t)
		for _, m := range msgs {
			if server {
				m.dir = m.dir.Other()
			}
			r.push(m.dir, m.bytes)
		}
		last := flow.Read
		if server {
			last = flow.Write
		}
		r.end(flow.KindEOF, last)
		r.end(flow.KindClose, flow.Write)
		if got := essence(r.calls); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %s\nwant %s", name, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
		}
		for _, c := range r.calls {
			if server != (c.Role == llm.RoleServer) {
				t.Errorf("%s: role %v", name, c.Role)
			}
		}
		r.check()
		if s := r.Stats(); s.Connections != 0 || s.Exchanges != 0 || s.Decoded != s.Pushed {
			t.Errorf("%s: %+v", name, s)
		}
	}
	msgs := transcript()
	play("whole", msgs, false)
	play("server", msgs, true)
	play("bytes", split(msgs, nil, 1), false)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 50 {
		play(fmt.Sprint("random ", i), split(msgs, rnd, 1+i), i%2 == 1)
	}
}

// A client's call is open from the end of its request to that of its answer; a server's
// is none of them.
func TestOpen(t *testing.T) {
	for _, client := range []bool{true, false} {
		r := newRig(t)
		ask, answer := flow.Write, flow.Read
		if !client {
			ask, answer = answer, ask
		}
		open := func(want bool) {
			t.Helper()
			n := 0
			for c := range r.Open("/echo", int64(len(askUnary))) {
				n++
				if c.Path != "/echo" || c.Conn != r.conn || c.Times.Start == 0 {
					t.Errorf("%+v", c)
				}
			}
			for range r.Open("/echo", 1) {
				t.Error("a request of another size is open")
			}
			if (n == 1) != (want && client) {
				t.Errorf("client %v: %d calls are open", client, n)
			}
		}
		request, whole := post("/echo", askUnary), reply(`{"text":"hi"}`)
		r.push(ask, request[:40])
		open(false)
		r.push(ask, request[40:])
		open(true)
		r.push(answer, whole[:60])
		open(true)
		r.push(answer, whole[60:])
		open(false)
		r.one()
	}
}
