package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/account/recordtest"
	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/decoder"
	"github.com/tollwire/tollwire/export/jsonl"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/probes"
)

// late is who names the pod of a process only when it is asked for the nth time.
type late struct{ asked, nth int }

func (l *late) Observe(flow.Proc, uint64) {}

func (l *late) Owner(flow.Proc, uint64, attribution.Evidence) attribution.Owner {
	l.asked++
	return attribution.Owner{PodUID: "u", Complete: l.asked >= l.nth}
}

// kept is an exporter that remembers.
type kept []*account.Record

func (k *kept) Export(r *account.Record) { *k = append(*k, r) }

// A call waits for its pod's name, within bounds, and one that goes out without it
// is counted.
func TestIncomplete(t *testing.T) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	prices, err := defaults().Pricing.open(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name       string
		owners     *late
		wait       time.Duration
		incomplete uint64
	}{
		{"named at once", &late{nth: 1}, time.Minute, 0},
		{"named when it is asked again", &late{nth: 2}, time.Minute, 0},
		{"never named", &late{nth: 1000}, time.Millisecond, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out kept
			p := &pipeline{
				log: log, owners: c.owners, prices: prices, export: []exporter{&out}, tick: time.Millisecond,
				stamp: func(*llm.Call) time.Time { return time.Now() },
				settle: account.Config{Wait: time.Millisecond, OwnerWait: c.wait, Owner: func(*account.Record) attribution.Owner {
					return c.owners.Owner(flow.Proc{}, 0, attribution.Evidence{})
				}},
			}
			calls := make(chan *llm.Call, 1)
			calls <- recordtest.New().Call
			close(calls)
			p.finish(calls)
			if len(out) != 1 || p.settled().Unowned != c.incomplete || out[0].Owner.Complete != (c.incomplete == 0) {
				t.Errorf("%d records, %d counted as incomplete, want %d", len(out), p.settled().Unowned, c.incomplete)
			}
		})
	}
}

// A server's call goes out with its client's, however late the client reads its answer.
func TestLateClient(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	prices, err := defaults().Pricing.open(log)
	if err != nil {
		t.Fatal(err)
	}
	const (
		request = "POST /v1/chat/completions HTTP/1.1\r\nHost: api.openai.com\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n" + `{"model":"gpt-4o"}`
		answer  = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n" + `{"id":"chat-1"}`
	)
	var out kept
	calls := make(chan *llm.Call, 2)
	p := &pipeline{
		log: log, owners: &late{}, prices: prices, export: []exporter{&out}, tick: time.Millisecond,
		stamp: func(*llm.Call) time.Time { return time.Now() }, settle: account.Config{Wait: 5 * time.Millisecond},
	}
	cfg := defaults().decoder(nil, prices.API, log)
	cfg.Call = func(c *llm.Call) { p.enqueue(calls, c) }
	s := &shard{Decoder: decoder.New(cfg)}
	p.decoders = []*shard{s}
	client, server := flow.Conn{Proc: flow.Proc{PID: 1}, Key: 1, Gen: 1}, flow.Conn{Proc: flow.Proc{PID: 2}, Key: 1, Gen: 1}
	push := func(c flow.Conn, dir flow.Dir, text string) {
		s.Lock()
		s.Push(&flow.Data{Kind: flow.KindData, Conn: c, Dir: dir, Source: flow.SourceOpenSSL, Time: probes.Now(), Payload: []byte(text)})
		s.Unlock()
	}
	push(client, flow.Write, request)
	push(server, flow.Read, request)
	push(server, flow.Write, answer)

	done := make(chan struct{})
	go func() { defer close(done); p.finish(calls) }()
	time.Sleep(100 * time.Millisecond) // twenty times what it waits for others
	push(client, flow.Read, answer)
	time.Sleep(50 * time.Millisecond)
	close(calls)
	<-done
	if len(out) != 2 {
		t.Fatalf("%d records", len(out))
	}
	for _, r := range out {
		if r.Counted != (r.Call.Role == llm.RoleClient) {
			t.Errorf("%v: counted %v as %q", r.Call.Role, r.Counted, r.Relay)
		}
	}
}

// What was cut by the connection's end is told from what was cut by the configured limit.
func TestBodyLimit(t *testing.T) {
	for _, c := range []struct {
		limit      Size
		body, seen int
		end        flow.Kind
		partial    llm.Partial
		errorType  string
	}{
		{64 << 20, 8 << 20, 6 << 20, flow.KindClose, llm.PartialCut, "cut"},
		{4 << 20, 8 << 20, 4<<20 + probes.HeadRoom, flow.KindClose, llm.PartialOverLimit, ""},
		{4 << 20, 8 << 20, 4<<20 + 1<<10, flow.KindClose, llm.PartialCut, "cut"},
		{256 << 10, 1 << 20, 256<<10 + probes.HeadRoom, flow.KindExit, llm.PartialOverLimit, ""},
		{256 << 10, 1 << 20, 200 << 10, flow.KindExit, llm.PartialCut, "cut"},
		{256 << 10, 200 << 10, 300 << 10, flow.KindClose, llm.PartialNone, ""},
	} {
		answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", c.body) +
			`{"id":"chat-1","text":"` + strings.Repeat("x", c.body-25) + `"}`
		answer = answer[:min(c.seen, len(answer))]
		whole := exchanged(flow.Conn{Proc: flow.Proc{PID: 1, Start: 1}, Key: 1, Gen: 1}, chat(), answer)
		whole[2].Kind = c.end
		cfg := defaults()
		cfg.Attribution.Proc, cfg.Attribution.HostRoot, cfg.Capture.BodyLimit = t.TempDir(), t.TempDir(), c.limit
		l, err := jsonl.Parse([]byte(lines(t, cfg, tape{whole})[0]))
		if err != nil {
			t.Fatal(err)
		}
		if l.Partial != string(c.partial) || l.ErrorType != c.errorType {
			t.Errorf("%v, %d of %d bytes: partial %q, error %q, want %q, %q", c.limit, c.seen, c.body, l.Partial, l.ErrorType, c.partial, c.errorType)
		}
	}
}

// torn is a source of two shards: the first has records and then waits to be closed, the
// second cannot be read.
type torn struct {
	tape
	closed chan struct{}
}

func (s *torn) Read(shard int, d *flow.Data) error {
	switch {
	case shard == 1:
		return errors.New("the ring is torn")
	case len(s.tape[0]) == 0:
		<-s.closed
	}
	return s.tape.Read(shard, d)
}

func (s *torn) Close() error {
	close(s.closed)
	return nil
}

// A shard that cannot be read ends the pipeline with its error, said at once; what was
// read before is finished.
func TestTornShard(t *testing.T) {
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logged, nil))
	prices, err := defaults().Pricing.open(log)
	if err != nil {
		t.Fatal(err)
	}
	whole := exchanged(flow.Conn{Proc: flow.Proc{PID: 1, Start: 1}, Key: 1, Gen: 1}, chat(), chatAnswer)
	src := &torn{tape{whole[:2], nil}, make(chan struct{})}
	var out kept
	p := &pipeline{
		log: log, source: src, decoder: defaults().decoder(nil, prices.API, log), owners: &late{nth: 1}, prices: prices,
		stamp: func(*llm.Call) time.Time { return time.Now() }, export: []exporter{&out}, queue: 8, tick: time.Millisecond,
	}
	done := make(chan error)
	go func() { done <- p.run() }()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "shard 1: the ring is torn") {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("still runs")
	}
	if !strings.Contains(logged.String(), "level=ERROR") || !strings.Contains(logged.String(), "the ring is torn") {
		t.Errorf("logged %q", logged.String())
	}
	if len(out) != 1 {
		t.Errorf("%d records", len(out))
	}
}
