//go:build linux

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/internal/clients"
	"github.com/tollwire/tollwire/internal/trial"
	"github.com/tollwire/tollwire/llm"
	"github.com/tollwire/tollwire/probes"
)

// spy is a vendor that notes the time of every event with content, call by call.
type spy struct {
	exchange.Vendor
	notes *notes
}

type notes struct {
	sync.Mutex
	content map[string][]flow.Time // by response id
}

func (s spy) Open(r *exchange.Request, f *exchange.Facts, c *llm.Call) exchange.Decoder {
	return &spying{Decoder: s.Vendor.Open(r, f, c), notes: s.notes, call: c}
}

type spying struct {
	exchange.Decoder
	notes *notes
	call  *llm.Call
	times []flow.Time
}

func (s *spying) Event(e *exchange.Event) error {
	err := s.Decoder.Event(e)
	if e.Content != exchange.NoContent {
		s.times = append(s.times, e.Time)
	}
	return err
}

func (s *spying) End(err error) {
	s.Decoder.End(err)
	s.notes.Lock()
	defer s.notes.Unlock()
	s.notes.content[s.call.ResponseID] = s.times
}

// gathered keeps records.
type gathered struct {
	sync.Mutex
	all []*account.Record
}

func (g *gathered) Export(r *account.Record) {
	g.Lock()
	defer g.Unlock()
	g.all = append(g.all, r)
}

func (g *gathered) clients() (n int) {
	g.Lock()
	defer g.Unlock()
	for _, r := range g.all {
		if r.Call.Role == llm.RoleClient {
			n++
		}
	}
	return n
}

// A client tells when it wrote its request by the times before and after. Where these lie
// further apart than unsure, as on a connection that is yet to be made or on a busy machine,
// it does not know the time to its first content itself.
const unsure = 500 * time.Microsecond

// TestTiming compares time to first content and every gap between contents with the
// clocks of the clients themselves.
func TestTiming(t *testing.T) {
	if os.Geteuid() != 0 || testing.Short() {
		t.Skip("attaches, and so needs root and a minute; make test-root runs this")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	programs, err := clients.All(ctx, filepath.Join(cache, "tollwire", "clients"))
	if err != nil {
		t.Fatal(err)
	}
	llmsim := filepath.Join(t.TempDir(), "llmsim")
	if out, err := exec.Command("go", "build", "-o", llmsim, "../llmsim").CombinedOutput(); err != nil {
		t.Fatalf("build llmsim: %v\n%s", err, out)
	}
	sim, err := trial.StartSim(llmsim, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer sim.Stop(syscall.SIGTERM)

	cfg, log := defaults(), slog.New(slog.DiscardHandler)
	prices, err := cfg.Pricing.open(log)
	if err != nil {
		t.Fatal(err)
	}
	taps, err := probes.Start(ctx, cfg.probes(log))
	if err != nil {
		t.Fatal(err)
	}
	seen, out := &notes{content: map[string][]flow.Time{}}, &gathered{}
	dc := cfg.decoder(nil, prices.API, log)
	for i, v := range dc.Vendors {
		dc.Vendors[i] = spy{v, seen}
	}
	p := &pipeline{
		log: log, source: taps, decoder: dc, owners: nobody{}, settle: account.Config{Wait: 200 * time.Millisecond}, prices: prices,
		stamp: func(c *llm.Call) time.Time { return probes.Wall(c.Times.Start) }, export: []exporter{out}, queue: 1024, tick: 20 * time.Millisecond,
	}
	done := make(chan error, 1)
	go func() { done <- p.run() }()

	var first, gaps []off
	want := 0
	for _, c := range programs {
		if c.Name == "curl" {
			continue // notes no times
		}
		spec := clients.Spec{BaseURL: sim.URL, CA: sim.CA, KeepAlive: true, Wait: true}
		for i := range 20 {
			tokens := 4
			if i < 2 {
				tokens = 80
			}
			spec.Calls = append(spec.Calls, clients.Call{
				Provider: []string{"openai", "anthropic"}[i%2], Stream: true, PromptBytes: 500,
				Sim: fmt.Sprintf("tokens=%d;rate=80;first=60ms;jitter=0.5", tokens),
			})
		}
		r, err := c.Start(ctx, spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		tapped := func(a probes.Attachment) bool { return slices.Contains(a.Processes, uint32(r.PID)) }
		for deadline := time.Now().Add(20 * time.Second); !slices.ContainsFunc(taps.Attached(), tapped) && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond) // its file may be new to the agent
		}
		if err := r.Go(); err != nil {
			t.Fatal(err)
		}
		res, err := r.Wait()
		if err != nil {
			t.Fatal(err)
		}
		want += len(res.Calls)
		for deadline := time.Now().Add(10 * time.Second); out.clients() < want && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
		for _, call := range res.Calls {
			rec := out.client(call.ID)
			if rec == nil {
				t.Errorf("%s: no record of %s", c.Name, call.ID)
				continue
			}
			seen.Lock()
			times := seen.content[call.ID]
			seen.Unlock()
			if len(times) != len(call.Contents) || rec.Call.Times.Chunks != len(times) {
				t.Errorf("%s: %d contents at the client, %d in the events, %d in the record", c.Name, len(call.Contents), len(times), rec.Call.Times.Chunks)
				continue
			}
			if call.Written != 0 && time.Duration(call.Written-call.Begin) <= unsure {
				first = append(first, offBy(times[0].Sub(rec.Call.Times.Start), time.Duration(call.Contents[0]-call.Begin)))
			}
			for i := 1; i < len(times); i++ {
				gaps = append(gaps, offBy(times[i].Sub(times[i-1]), time.Duration(call.Contents[i]-call.Contents[i-1])))
			}
		}
	}
	if err := taps.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	for name, all := range map[string][]off{"time to first content": first, "gaps": gaps} {
		if len(all) < want/5 {
			t.Fatalf("%s: %d to compare, of %d calls", name, len(all), want)
		}
		abs, rel := quantile(all, 0.5)
		abs99, rel99 := quantile(all, 0.99)
		fmt.Printf("timing: %s against the clients' clocks: median off by %v (%.2f %%), p99 %v (%.2f %%), of %d\n",
			name, abs.Round(time.Microsecond), 100*rel, abs99.Round(time.Microsecond), 100*rel99, len(all))
		if abs > time.Millisecond && rel > 0.02 {
			t.Errorf("%s: the median is off by %v (%.2f %%), want 1 ms or 2 %%", name, abs, 100*rel)
		}
	}
}

func (g *gathered) client(id string) *account.Record {
	g.Lock()
	defer g.Unlock()
	i := slices.IndexFunc(g.all, func(r *account.Record) bool { return r.Call.Role == llm.RoleClient && r.Call.ResponseID == id })
	if i < 0 {
		return nil
	}
	return g.all[i]
}

// off is how far the agent's reading of a duration is from the client's.
type off struct {
	abs time.Duration
	rel float64
}

func offBy(got, want time.Duration) off {
	d := (got - want).Abs()
	return off{d, float64(d) / float64(max(want, 1))}
}

func quantile(all []off, q float64) (time.Duration, float64) {
	i := int(q * float64(len(all)-1))
	abs := slices.SortedFunc(slices.Values(all), func(a, b off) int { return int(a.abs - b.abs) })
	rel := slices.SortedFunc(slices.Values(all), func(a, b off) int {
		if a.rel < b.rel {
			return -1
		}
		return 1
	})
	return abs[i].abs, rel[i].rel
}
