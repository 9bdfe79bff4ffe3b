package sdks

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tollwire/tollwire/cmd/llmsim/ledgercheck"
	"github.com/tollwire/tollwire/cmd/llmsim/sim"
	"github.com/tollwire/tollwire/internal/simtap"
)

// TestStreams has every SDK stream from the simulator, plainly and with every
// content coding and WebSocket extension it offers, and holds the text and the
// tokens it reports to what was served, and so what the decoder makes of its bytes.
func TestStreams(t *testing.T) {
	if testing.Short() {
		t.Skip("downloads some 240 MB of SDKs")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	silent := []string{"openai embeddings", "openai image edit", "openai speech", "cohere rerank"}
	for _, tt := range []struct {
		install func(context.Context, string) (*Suite, error)
		streams int
		calls   int // two on the socket of Responses; what is said is written down by a call of its own
	}{{Node, 26, 28}, {Go, 4, 4}} {
		suite, err := tt.install(ctx, filepath.Join(cache, "tollwire-clients"))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, encoding := range []string{"identity", "auto"} {
			plan := sim.DefaultPlan()
			if err := plan.Overlay("tokens=12;input=30;encoding=" + encoding); err != nil {
				t.Fatal(err)
			}
			tap := simtap.New()
			s, err := sim.Start(sim.Config{Dir: t.TempDir(), Plan: &plan, Tap: tap.Wrap})
			if err != nil {
				t.Fatal(err)
			}
			out, err := suite.Command(ctx, "https://localhost:"+port(s.TLSAddr()), s.CA()).Output()
			if err != nil {
				t.Errorf("%s: %v", suite.Name, err)
			}
			streams, err := Read(out)
			if err != nil || len(streams) != tt.streams {
				t.Errorf("%s, %s: %d streams, want %d: %v", suite.Name, encoding, len(streams), tt.streams, err)
			}
			for _, r := range streams {
				if r.Error != "" || r.Text != plan.Text() && !slices.Contains(silent, r.Name) || r.Input != 0 && r.Input != 30 || r.Output != 0 && r.Output != 12 {
					t.Errorf("%s, %s: %+v, want %q, 30 and 12", suite.Name, encoding, r, plan.Text())
				}
			}
			es, err := s.Ledger().Wait(ctx, tt.calls)
			if err != nil || len(es) != tt.calls {
				t.Errorf("%s, %s: %d entries: %v", suite.Name, encoding, len(es), err)
			}
			for _, e := range es {
				if e.Outcome != "completed" {
					t.Errorf("%s, %s: %s %s: %s", suite.Name, encoding, e.Provider, e.Path, e.Outcome)
				}
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			calls, failures := tap.Close()
			for kind, n := range failures {
				t.Errorf("%s, %s: %d failures: %s", suite.Name, encoding, n, kind)
			}
			for _, m := range ledgercheck.Check(es, tap.Records(calls), ledgercheck.Options{Role: "server"}).Mismatches {
				if !strings.Contains(m, `provider is ""`) { // localhost tells none
					t.Errorf("%s, %s: %s", suite.Name, encoding, m)
				}
			}
		}
	}
}

func port(addr string) string {
	for i := len(addr) - 1; i >= 0; i-- {
		if addr[i] == ':' {
			return addr[i+1:]
		}
	}
	return addr
}
