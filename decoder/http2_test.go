package decoder

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// tape is a client's connection that writes down what crosses it.
type tape struct {
	net.Conn
	mu   sync.Mutex
	msgs []message
}

func (t *tape) note(d flow.Dir, b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.msgs = append(t.msgs, message{d, string(b)})
}

func (t *tape) Write(b []byte) (int, error) {
	t.note(flow.Write, b)
	return t.Conn.Write(b)
}

func (t *tape) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	if n > 0 {
		t.note(flow.Read, b[:n])
	}
	return n, err
}

// recordH2 lets x/net's client talk to x/net's server: n calls, some at once, streamed
// and not, among requests that are none of ours.
func recordH2(t testing.TB, n int) []message {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		ask, _ := io.ReadAll(r.Body)
		id := r.Header.Get("X-Id")
		if bytes.Contains(ask, []byte("stream")) {
			w.Header().Set("Content-Type", "text/event-stream")
			for _, e := range []string{`{"text":"s"}`, `{"text":"` + id + `"}`, `{"usage":` + id + `}`, "[DONE]"} {
				fmt.Fprintf(w, "data: %s\n\n", e)
				w.(http.Flusher).Flush()
			}
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Trailer", "X-Trailer")
		fmt.Fprintf(w, `{"text":"u%s","usage":%s}`, id, id)
		w.Header().Set("X-Trailer", "1")
	})
	mux.HandleFunc("/big", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)                            // else the client may leave the rest of it out
		w.Header().Set("X-Long", strings.Repeat("long", 8000)) // needs CONTINUATION
		w.Write(make([]byte, 100_000))
	})
	client, server := net.Pipe()
	rec := &tape{Conn: client}
	go new(http2.Server).ServeConn(server, &http2.ServeConnOpts{Handler: mux})
	tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(context.Context, string, string, *tls.Config) (net.Conn, error) { return rec, nil }}
	cc, err := tr.NewClientConn(rec)
	if err != nil {
		t.Fatal(err)
	}
	do := func(path, body string, id int) {
		req, _ := http.NewRequest("POST", "http://api.example.com"+path, strings.NewReader(body))
		req.Header.Set("X-Id", fmt.Sprint(id))
		resp, err := cc.RoundTrip(req)
		if err != nil {
			t.Error(err)
			return
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	var wg sync.WaitGroup
	for i := range n {
		ask := askUnary
		if i%2 == 1 {
			ask = askStream
		}
		if i%4 == 0 {
			wg.Wait()
			do("/big", strings.Repeat("x", 70_000), 0)
		}
		wg.Go(func() { do("/echo", ask, i+1) })
	}
	wg.Wait()
	client.Close()
	server.Close()
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return slices.Clone(rec.msgs)
}

func sorted(s []string) []string { slices.Sort(s); return s }

func TestHTTP2HoweverSplit(t *testing.T) {
	noLeak(t)
	const n = 12
	msgs := recordH2(t, n)
	var want []string
	for i := range n {
		text, in, out := fmt.Sprintf("u%d", i+1), 16, len(fmt.Sprintf(`{"text":"u%d","usage":%d}`, i+1, i+1))
		if i%2 == 1 {
			text, in = fmt.Sprintf("s%d", i+1), 30
			out = len("data: {\"text\":\"s\"}\n\n"+"data: {\"text\":\"\"}\n\n"+"data: {\"usage\":}\n\n"+"data: [DONE]\n\n") + 2*len(fmt.Sprint(i+1))
		}
		want = append(want, fmt.Sprintf(`POST /echo 200 %s %d exact "" "" %d/%d`, text, i+1, in, out))
	}
	slices.Sort(want)
	rnd := rand.New(rand.NewPCG(7, 8))
	for name, m := range map[string][]message{
		"whole": msgs, "bytes": split(msgs, nil, 1), "random 20": split(msgs, rnd, 20), "random 2000": split(msgs, rnd, 2000),
	} {
		for _, server := range []bool{false, true} {
			r := newRig(t)
			for _, m := range m {
				if server {
					m.dir = m.dir.Other()
				}
				r.push(m.dir, m.bytes)
			}
			r.Close()
			r.check()
			if got := sorted(essence(r.calls)); !reflect.DeepEqual(got, want) {
				t.Errorf("%s, server %v:\n got %s\nwant %s", name, server, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
			}
			if s := r.Stats(); len(s.Failures) > 0 || s.Exchanges > 0 {
				t.Errorf("%s: %+v", name, s)
			}
			if len(r.calls) > 0 && r.calls[0].ServerAddress != "api.example.com" || server != (r.calls[0].Role == llm.RoleServer) {
				t.Errorf("%+v", r.calls[0])
			}
		}
	}
}

// TestHTTP2JoinedLate leaves out the beginning of a connection: calls that begin later
// are whole but for their heads, and nothing is wrong without a label.
func TestHTTP2JoinedLate(t *testing.T) {
	noLeak(t)
	msgs := recordH2(t, 12)
	for from := 1; from < len(msgs)-1; from += 3 {
		r := newRig(t)
		for _, m := range msgs[:from] {
			r.pos[m.dir] += uint64(len(m.bytes))
		}
		for _, m := range msgs[from:] {
			d := r.data(m.dir, []byte(m.bytes))
			d.Late = true
			r.Push(d)
		}
		r.Close()
		for _, c := range r.calls {
			id := 0
			fmt.Sscanf(strings.TrimLeft(c.ResponseModel, "us"), "%d", &id)
			if c.Completeness == llm.Exact && int(c.Usage.Get(llm.Output)) != id {
				t.Errorf("from %d: %s", from, essence([]*llm.Call{c}))
			}
		}
		if s := r.Stats(); s.Failures["panic"] > 0 {
			t.Errorf("from %d: %+v", from, s)
		}
	}
	// A join between two rounds of calls finds all of the later ones.
	var big int
	for i, m := range msgs {
		if m.dir == flow.Write && strings.Contains(m.bytes, strings.Repeat("x", 100)) {
			big = i // the last of the body of a /big, before the last four calls
		}
	}
	r := newRig(t)
	for _, m := range msgs[big:] {
		d := r.data(m.dir, []byte(m.bytes))
		d.Late = true
		r.Push(d)
	}
	r.Close()
	if len(r.calls) != 4 {
		t.Errorf("%d calls, %v", len(r.calls), r.Stats().Failures)
	}
	for _, c := range r.calls {
		if c.Completeness != llm.Exact || c.Partial != llm.PartialLateAttach {
			t.Errorf("%s", essence([]*llm.Call{c}))
		}
	}
}

// TestHTTP2Hole loses a stretch at every place: whoever is exact is right.
func TestHTTP2Hole(t *testing.T) {
	noLeak(t)
	msgs := recordH2(t, 4)
	for i := range msgs {
		for _, size := range []int{1, 5, 40} {
			if len(msgs[i].bytes) < size+1 || i == 0 {
				continue
			}
			r := newRig(t)
			for j, m := range msgs {
				if j == i {
					at := (len(m.bytes) - size) / 2
					r.push(m.dir, m.bytes[:at])
					r.lose(m.dir, size, flow.GapRingFull, m.bytes[at+size:])
					continue
				}
				r.push(m.dir, m.bytes)
			}
			r.Close()
			r.check()
			lost := uint64(0)
			for _, c := range r.calls {
				id := 0
				fmt.Sscanf(strings.TrimLeft(c.ResponseModel, "us"), "%d", &id)
				if c.Completeness == llm.Exact && (c.Status != 200 || int(c.Usage.Get(llm.Output)) != id) {
					t.Errorf("hole in %d: %s", i, essence([]*llm.Call{c}))
				}
				lost += c.LostBytes
			}
			if s := r.Stats(); s.Failures["panic"] > 0 || s.Exchanges > 0 {
				t.Errorf("hole in %d: %+v", i, s)
			}
		}
	}
}

// h2 writes frames by hand.
type h2 struct {
	bytes.Buffer
	*http2.Framer
	enc  *hpack.Encoder
	head bytes.Buffer
}

func newH2() *h2 {
	h := &h2{}
	h.Framer = http2.NewFramer(&h.Buffer, nil)
	h.enc = hpack.NewEncoder(&h.head)
	return h
}

func (h *h2) block(kv ...string) []byte {
	h.head.Reset()
	for i := 0; i < len(kv); i += 2 {
		h.enc.WriteField(hpack.HeaderField{Name: kv[i], Value: kv[i+1]})
	}
	return bytes.Clone(h.head.Bytes())
}

func (h *h2) take() string { s := h.Buffer.String(); h.Buffer.Reset(); return s }

func TestHTTP2Frames(t *testing.T) {
	noLeak(t)
	c, s := newH2(), newH2()
	r := newRig(t)
	c.WriteString(http2.ClientPreface)
	c.WriteSettings()
	s.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100})
	s.WriteSettingsAck()
	r.push(flow.Read, s.take()) // the server may speak first
	ask := func(id uint32) {
		b := c.block(":method", "POST", ":scheme", "https", ":path", "/echo?q=1", ":authority", "API.example.com:8443", "content-type", "application/json")
		c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b[:3], PadLength: 7, Priority: http2.PriorityParam{Weight: 3}})
		c.WriteContinuation(id, false, b[3:5])
		c.WriteContinuation(id, true, b[5:])
		c.WritePing(false, [8]byte{})
		c.WriteDataPadded(id, false, []byte(askUnary[:5]), make([]byte, 100))
		c.WriteDataPadded(id, true, []byte(askUnary[5:]), nil)
	}
	answer := func(id uint32, body string, end bool) {
		s.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: s.block(":status", "103"), EndHeaders: true})
		s.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: s.block(":status", "200", "content-type", "application/json"), EndHeaders: true})
		s.WriteDataPadded(id, end, []byte(body), make([]byte, 9))
	}
	for id := uint32(1); id <= 9; id += 2 {
		ask(id)
	}
	r.push(flow.Write, c.take())
	s.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: s.block(":method", "GET", ":path", "/pushed"), EndHeaders: true})
	answer(1, `{"text":"one","usage":1}`, true)
	answer(3, `{"text":"reset","usa`, false)
	s.WriteRSTStream(3, http2.ErrCodeInternal)
	answer(5, `{"text":"five","usage":5}`, false)
	s.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, BlockFragment: s.block("x-trailer", "1"), EndHeaders: true, EndStream: true})
	s.WriteGoAway(7, http2.ErrCodeNo, nil)
	answer(7, `{"text":"seven","usage":7}`, true)
	s.WriteRawFrame(0xbe, 0x7f, 3, []byte("an extension"))
	r.push(flow.Read, s.take())
	r.Close()
	want := sorted([]string{
		`POST /echo 200 one 1 exact "" "" 16/24`, `POST /echo 200  0 missing "cut" "cut" 16/20`,
		`POST /echo 200 five 5 exact "" "" 16/25`, `POST /echo 0  0 missing "cut" "cut" 16/0`,
		`POST /echo 200 seven 7 exact "" "" 16/26`,
	})
	if got := sorted(essence(r.calls)); !reflect.DeepEqual(got, want) {
		t.Errorf("got %s\nwant %s", strings.Join(got, "\n    "), strings.Join(want, "\n     "))
	}
	if r.calls[0].ServerPort != 8443 || r.calls[0].ServerAddress != "api.example.com" || len(r.Stats().Failures) > 0 {
		t.Errorf("%+v, %v", r.calls[0], r.Stats().Failures)
	}
}

// TestHTTP2Idle: a call is given up after a long silence, the connection isn't.
func TestHTTP2Idle(t *testing.T) {
	noLeak(t)
	c, s := newH2(), newH2()
	r := newRig(t)
	c.WriteString(http2.ClientPreface)
	c.WriteSettings()
	s.WriteSettings()
	for _, id := range []uint32{1, 3} {
		c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: c.block(":method", "POST", ":path", "/echo", ":authority", "x", "x-indexed", "1")})
		c.WriteData(id, true, []byte(askUnary))
		r.push(flow.Write, c.take())
		if id == 3 {
			s.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: s.block(":status", "200")})
			s.WriteData(id, true, []byte(`{"usage":1}`))
			r.push(flow.Read, s.take())
		}
		r.now += flow.Time(time.Hour)
		r.Tick(r.now)
	}
	r.Close()
	want := []string{`POST /echo 0  0 missing "cut" "timeout" 16/0`, `POST /echo 200  1 exact "" "" 16/11`}
	if got := essence(r.calls); !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
}

// TestHTTP2Hostile: lists and streams without end, tables that lie, padding past the frame.
func TestHTTP2Hostile(t *testing.T) {
	noLeak(t)
	for name, attack := range map[string]func(h *h2){
		"endless continuation": func(h *h2) {
			h.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.block(":method", "POST")})
			for range 1000 {
				h.WriteContinuation(1, false, h.block("x", strings.Repeat("y", 1000)))
			}
		},
		"streams": func(h *h2) {
			for id := uint32(1); id < 5000; id += 2 {
				h.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.block(":method", "POST", ":path", "/echo"), EndHeaders: true})
			}
		},
		"bad index": func(h *h2) {
			h.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff, 0x7f}, EndHeaders: true})
		},
		"table size": func(h *h2) {
			h.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x3f, 0xff, 0xff, 0xff, 0x7f}, EndHeaders: true})
		},
		"padding":      func(h *h2) { h.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, 1, []byte{200, 1, 2}) },
		"no padding":   func(h *h2) { h.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, 1, nil) },
		"16 MiB frame": func(h *h2) { h.Write([]byte{0xff, 0xff, 0xff, 1, 4, 0, 0, 0, 1}); h.Write(make([]byte, 1<<20)) },
		"settings":     func(h *h2) { h.WriteRawFrame(http2.FrameSettings, 0, 0, []byte{1, 2, 3}) },
	} {
		h := newH2()
		h.AllowIllegalWrites = true
		h.WriteString(http2.ClientPreface)
		h.WriteSettings()
		attack(h)
		r := newRig(t)
		for _, m := range split([]message{{flow.Write, h.take()}}, nil, 16<<10) {
			r.push(m.dir, m.bytes)
		}
		if n := r.Stats().Exchanges; n > 256 {
			t.Errorf("%s: %d open", name, n)
		}
		r.Tick(r.now + flow.Time(time.Second))
		r.Close()
		r.check()
		quiet := name == "no padding" || name == "endless continuation" || name == "16 MiB frame"
		if s := r.Stats(); s.Failures["panic"] > 0 || len(s.Failures) == 0 && !quiet {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func FuzzHTTP2(f *testing.F) {
	for _, m := range recordH2(f, 4) {
		f.Add(http2.ClientPreface+m.bytes, m.bytes, 3, true)
	}
	f.Fuzz(func(t *testing.T, ask, answer string, size int, late bool) {
		r := newRig(t, func(c *Config) { c.MaxHeld = 8192; c.MaxStreams = 8; c.MaxHead = 8192 })
		size = 1 + int(uint(size)%200)
		for i, m := range split([]message{{flow.Write, ask}, {flow.Read, answer}}, nil, size) {
			d := r.data(m.dir, []byte(m.bytes))
			d.Late = late
			if i%7 == 6 {
				d.Pos++
				d.Gap, d.GapReason = 1, flow.GapFault
				r.pos[m.dir]++
			}
			r.Push(d)
		}
		r.Tick(r.now + flow.Time(time.Second))
		r.Close()
		r.check()
		if s := r.Stats(); s.Failures["panic"] > 0 || s.Exchanges > 0 {
			t.Fatalf("%+v", s)
		}
	})
}
