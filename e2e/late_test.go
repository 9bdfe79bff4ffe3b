package e2e

import (
	"slices"
	"testing"

	"github.com/tollwire/tollwire/cmd/llmsim/ledgercheck"
	"github.com/tollwire/tollwire/internal/clients"
)

// TestLateConnections: a connection that was in use before the agent came is read from
// its next request on. On HTTP/1 that one says late_attach, as nobody can know whether
// the answer seen first is its own; on HTTP/2 every one whose header fields refer to
// what was not seen. Go waits in a read for the answer when the agent comes, which was not
// seen to begin.
func TestLateConnections(t *testing.T) {
	for name, c := range map[string]struct {
		program string
		http2   bool
	}{
		"OpenSSL, HTTP/1.1": {"python-http", false},
		"node, HTTP/1.1":    {"node", false},
		"Go, HTTP/1.1":      {"go", false},
		"Go, HTTP/2":        {"go", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			calls := both("tokens=30")
			r := s.run(s.program(c.program), clients.Spec{BaseURL: s.sim.URL, CA: s.sim.CA, Calls: calls, KeepAlive: true, HTTP2: c.http2,
				Wait: true, WaitAfter: 1})
			s.ledger(1)
			a := s.agent()
			if err := a.Tapped(s.ctx, r.PID); err != nil {
				t.Fatal(err)
			}
			if err := r.Go(); err != nil {
				t.Fatal(err)
			}
			s.finish(r)
			records := of("client", s.await(a, "client", len(calls)-1))
			slices.SortFunc(records, func(a, b *ledgercheck.Record) int { return a.Time.Compare(b.Time) })
			served := s.ledger(len(calls))[1:]
			if len(records) != len(served) {
				t.Fatalf("%d records, want %d", len(records), len(served))
			}
			for i, r := range records {
				e := served[i]
				if late := r.Partial == "late_attach"; late != (i == 0 || c.http2) {
					t.Errorf("call %d: partial is %q", i, r.Partial)
				}
				if r.ResponseID != e.ID || r.Completeness != "exact" || r.Usage["output"] != float64(e.Usage["output"]) {
					t.Errorf("call %d: %s, usage %s %v, want %s %v", i, r.ResponseID, r.Completeness, r.Usage, e.ID, e.Usage)
				}
			}
		})
	}
}
