package e2e

import (
	"testing"

	"github.com/tollwire/tollwire/cmd/llmsim/ledgercheck"
	"github.com/tollwire/tollwire/internal/clients"
)

// TestHundredStreams: a hundred streams at once, each of a thousand events of some 200
// bytes as fast as they can be written, lose nothing: neither a byte nor a chunk, at
// either end, in a connection of their own or as streams of one.
func TestHundredStreams(t *testing.T) {
	const streams, events = 100, 1000
	calls := make([]clients.Call, streams)
	for i := range calls {
		calls[i] = clients.Call{Provider: "anthropic", Stream: true, PromptBytes: 200, Sim: "body=70000;size=70"}
	}
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			a := s.agent()
			s.finish(s.run(s.program("go"), clients.Spec{BaseURL: s.sim.URL, CA: s.sim.CA, KeepAlive: true, HTTP2: http2, Concurrency: streams, Calls: calls}))
			for _, role := range []string{"client", "server"} {
				for _, r := range of(role, s.matches(a, role, streams)) {
					if r.Chunks != events || r.Partial != "" || r.LostBytes != 0 || r.Completeness != "exact" {
						t.Errorf("%s %s: %d chunks, partial %q, %d bytes lost, usage %s", role, r.ResponseID, r.Chunks, r.Partial, r.LostBytes, r.Completeness)
					}
				}
			}
			if d := s.dropped(a); d != 0 {
				t.Errorf("%.0f bytes dropped", d)
			}
		})
	}
}

// of returns the records of one role.
func of(role string, all []*ledgercheck.Record) (some []*ledgercheck.Record) {
	for _, r := range all {
		if r.Role == role {
			some = append(some, r)
		}
	}
	return some
}
