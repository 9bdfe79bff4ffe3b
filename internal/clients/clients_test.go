package clients

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tollwire/tollwire/cmd/llmsim/sim"
)

// cache keeps the built Go clients between runs.
func cache(t *testing.T) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "tollwire-clients")
}

func all(t *testing.T) []Client {
	t.Helper()
	cs, err := All(t.Context(), cache(t))
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

func serve(t *testing.T, cfg sim.Config) *sim.Server {
	t.Helper()
	cfg.Dir = t.TempDir()
	s, err := sim.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

var fourCalls = []Call{
	{Provider: "openai", PromptBytes: 400, Sim: "tokens=5"},
	{Provider: "openai", PromptBytes: 4000, Stream: true, Sim: "tokens=12;think=3;rate=400;cached=8"},
	{Provider: "anthropic", PromptBytes: 400, Sim: "tokens=5;write5m=100"},
	{Provider: "anthropic", PromptBytes: 4000, Stream: true, Sim: "tokens=12;think=3;rate=400;write1h=7"},
}

// TestAgainstLedger runs every client over TLS and plaintext, on one connection and
// on many, and holds what it says to what the simulator served.
func TestAgainstLedger(t *testing.T) {
	for _, c := range all(t) {
		if c.Library == "" {
			t.Errorf("%s: where its TLS comes from is not known", c.Name)
		}
		for _, tls := range []bool{true, false} {
			for _, keep := range []bool{true, false} {
				for _, workers := range []int{1, 4} {
					t.Run(fmt.Sprintf("%s/tls=%v/keepalive=%v/workers=%d", c.Name, tls, keep, workers), func(t *testing.T) {
						t.Parallel()
						s := serve(t, sim.Config{})
						spec := Spec{BaseURL: "http://" + s.Addr(), CA: s.CA(), Calls: fourCalls, KeepAlive: keep, Concurrency: workers}
						if tls {
							spec.BaseURL = "https://" + s.TLSAddr()
						}
						res := run(t, c, spec)
						compare(t, s, res, spec)
						conns := len(s.Ledger().Conns())
						if want := 1; keep && workers == 1 && conns != want || !keep && conns != len(spec.Calls) {
							t.Errorf("%d connections", conns)
						}
					})
				}
			}
		}
	}
}

func run(t *testing.T, c Client, spec Spec) *Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := c.Start(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	if spec.Wait {
		if err := r.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		if err := r.Go(); err != nil {
			t.Fatal(err)
		}
	}
	res, err := r.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// compare holds each call of res to its ledger entry.
func compare(t *testing.T, s *sim.Server, res *Result, spec Spec) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	es, err := s.Ledger().Wait(ctx, len(spec.Calls))
	if err != nil {
		t.Error(err)
	}
	entries := map[string]*sim.Entry{}
	for _, e := range es {
		entries[e.RequestID] = e
	}
	if len(entries) != len(spec.Calls) || len(res.Calls) != len(spec.Calls) {
		t.Fatalf("%d calls, the ledger has %d, the client %d", len(spec.Calls), len(entries), len(res.Calls))
	}
	for _, c := range res.Calls {
		e := entries[c.RequestID]
		if e == nil {
			t.Errorf("call %d: request id %q is not in the ledger: %+v", c.Index, c.RequestID, c)
			continue
		}
		if !c.OK || c.ID != e.ID || c.Status != e.Status || c.Sent != e.RequestBytes || c.Received != e.ResponseBytes {
			t.Errorf("call %d: client %+v\nledger %+v", c.Index, c, e)
		}
		if want := spec.Calls[c.Index]; e.Stream != want.Stream || e.Provider != want.Provider {
			t.Errorf("call %d is %s, stream %v in the ledger", c.Index, e.Provider, e.Stream)
		}
		if c.Begin == 0 {
			continue
		}
		if c.Written != 0 && (c.Written < c.Begin || c.Written > c.End) {
			t.Errorf("call %d: written at %d, from %d to %d", c.Index, c.Written, c.Begin, c.End)
		}
		if c.Begin > e.FirstByte || c.End < e.HeadSent {
			t.Errorf("call %d: from %d to %d for the client, read at %d and answered at %d by the server",
				c.Index, c.Begin, c.End, e.FirstByte, e.HeadSent)
		}
		if !e.Stream {
			continue
		}
		served := e.Contents()
		if len(c.Contents) != len(served) {
			t.Errorf("call %d: the client saw %d content deltas, %d were served", c.Index, len(c.Contents), len(served))
			continue
		}
		for i, at := range c.Contents {
			if at < served[i] {
				t.Errorf("call %d: delta %d was seen %v before it was written", c.Index, i, time.Duration(served[i]-at))
			}
		}
	}
	var read, written int64
	for _, c := range s.Ledger().Conns() {
		read, written = read+c.Read, written+c.Written
	}
	if res.TotalSent != 0 && (res.TotalSent != read || res.TotalReceived != written) {
		t.Errorf("client sent %d and received %d, the server read %d and wrote %d", res.TotalSent, res.TotalReceived, read, written)
	}
}

// TestWait starts each client before it is let go.
func TestWait(t *testing.T) {
	for _, c := range all(t) {
		t.Run(c.Name, func(t *testing.T) {
			s := serve(t, sim.Config{})
			spec := Spec{BaseURL: "https://" + s.TLSAddr(), CA: s.CA(), Calls: fourCalls[:2], KeepAlive: true, Wait: true}
			compare(t, s, run(t, c, spec), spec)
			if c.Name == "curl" {
				return
			}
			s.Ledger().Reset()
			spec = Spec{BaseURL: "https://" + s.TLSAddr(), CA: s.CA(), Calls: fourCalls[2:], KeepAlive: true, Wait: true, WaitAfter: 1}
			res := run(t, c, spec)
			res.TotalSent = 0 // the connections of both runs are in the ledger
			compare(t, s, res, spec)
		})
	}
}

// TestBefore makes other requests on the connection of a call.
func TestBefore(t *testing.T) {
	for _, c := range all(t) {
		t.Run(c.Name, func(t *testing.T) {
			s := serve(t, sim.Config{})
			spec := Spec{BaseURL: "https://" + s.TLSAddr(), CA: s.CA(), Calls: fourCalls[:1], KeepAlive: true}
			for range 3 {
				spec.Before = append(spec.Before, Request{Method: "GET", Path: "/api/orders"},
					Request{Method: "POST", Path: "/api/orders", Body: `{"item":"x"}`}, Request{Method: "GET", Path: "/big?bytes=300000"})
			}
			compare(t, s, run(t, c, spec), spec)
			if n := len(s.Ledger().Conns()); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestFaults: an error status is a response like any other; a cut is not.
func TestFaults(t *testing.T) {
	for _, c := range all(t) {
		t.Run(c.Name, func(t *testing.T) {
			s := serve(t, sim.Config{})
			spec := Spec{BaseURL: "https://" + s.TLSAddr(), CA: s.CA(), Calls: []Call{
				{Provider: "openai", Sim: "error=429"},
				{Provider: "anthropic", Stream: true, Sim: "error=529"},
				{Provider: "anthropic", Stream: true, Sim: "tokens=9;cut=3"},
				{Provider: "openai", Sim: "cut=0"},
				{Provider: "openai", Stream: true, Sim: "error=inband"},
			}}
			res := run(t, c, spec)
			for i, want := range []struct {
				status int
				ok     bool
			}{{429, true}, {529, true}, {200, false}, {200, false}, {200, true}} {
				got := res.Calls[i]
				if got.Status != want.status || got.OK != want.ok || got.OK == (got.Error != "") {
					t.Errorf("call %d: %+v, want %+v", i, got, want)
				}
			}
			for i, want := range []string{"error", "error", "cut", "cut", "error"} {
				if e := s.Ledger().Entries()[i]; e.Outcome != want {
					t.Errorf("entry %d: %s, want %s", i, e.Outcome, want)
				}
			}
		})
	}
}

// TestHTTP2 has the clients that can speak it use HTTP/2.
func TestHTTP2(t *testing.T) {
	for _, c := range all(t) {
		if !c.HTTP2 {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			s := serve(t, sim.Config{})
			spec := Spec{BaseURL: "https://" + s.TLSAddr(), CA: s.CA(), Calls: fourCalls, KeepAlive: true, HTTP2: true}
			compare(t, s, run(t, c, spec), spec)
			for _, e := range s.Ledger().Entries() {
				if e.HTTP != "HTTP/2.0" {
					t.Errorf("%s was served over %s", e.ID, e.HTTP)
				}
			}
		})
	}
}

// TestBigBodies: a prompt of 3 MiB and a stream of 2 MiB.
func TestBigBodies(t *testing.T) {
	for _, c := range all(t) {
		t.Run(c.Name, func(t *testing.T) {
			s := serve(t, sim.Config{})
			spec := Spec{BaseURL: "https://" + s.TLSAddr(), CA: s.CA(), KeepAlive: true, Calls: []Call{
				{Provider: "anthropic", PromptBytes: 3 << 20, Sim: "tokens=4"},
				{Provider: "openai", Stream: true, Sim: "body=2097152;size=2048"},
			}}
			compare(t, s, run(t, c, spec), spec)
		})
	}
}
