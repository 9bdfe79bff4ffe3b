package backends_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tollwire/tollwire/internal/clients"
	"github.com/tollwire/tollwire/internal/trial"
)

// TestHostileModels: a client that names another model in every call makes no more
// series than the limit, and no call of it is lost that the agent does not say it lost.
func TestHostileModels(t *testing.T) {
	const n, limit = 10_000, 200
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	r := &rig{T: t, ctx: ctx}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if r.programs, err = clients.All(ctx, filepath.Join(cache, "tollwire", "clients")); err != nil {
		t.Fatal(err)
	}
	hostile := &r.programs[slices.IndexFunc(r.programs, func(c clients.Client) bool { return c.Name == "go" })]
	if r.sim, err = trial.StartSim(bin.llmsim, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.sim.Stop(syscall.SIGTERM) })
	file := filepath.Join(t.TempDir(), "tollwire.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "export: {metrics: {max_series: %d}}\n", limit), 0o600); err != nil {
		t.Fatal(err)
	}
	if r.agent, err = trial.StartAgent(ctx, bin.agent, t.TempDir(), "--config", file); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.agent.Stop(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the agent said:\n%s", r.agent.Log())
		}
	})

	var calls []clients.Call
	for i := range n {
		calls = append(calls, clients.Call{Provider: "openai", Model: model(i), Sim: "tokens=2;head=4ms", Headers: map[string]string{"X-Tollwire-Graph": graph}})
	}
	before := 0
	for half := range 2 {
		run, err := hostile.Start(ctx, clients.Spec{BaseURL: r.sim.URL, CA: r.sim.CA, Calls: calls[half*n/2 : (half+1)*n/2], KeepAlive: true, Concurrency: 4, Wait: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := run.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		r.release(run)
		r.finish([]*clients.Run{run})
		want := float64((half + 1) * n / 2)
		var m trial.Samples
		for deadline := time.Now().Add(patience / 2); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
			if m = r.scrape(); m.Sum("tollwire_calls_total", "tollwire_graph", graph) >= 2*want {
				break
			}
		}
		lost := m.Sum("tollwire_capture_bytes_total", "fate", "dropped") + m.Sum("tollwire_queue_dropped_total")
		for _, role := range []string{"client", "server"} {
			switch got := m.Sum("tollwire_calls_total", "role", role, "tollwire_graph", graph); {
			case got > want, got < want && lost == 0:
				t.Errorf("%v calls of role %s, want %v", got, role, want)
			case got < want: // a machine that is busy with other things
				t.Logf("%v calls of role %s of %v; the agent says that it lost %v bytes or calls", got, role, want, lost)
			}
		}
		if m.Sum("tollwire_series_capped_total") == 0 {
			t.Error("nothing says that calls were not kept apart")
		}
		if got := apart(m); got > limit || got < limit/2 {
			t.Errorf("%d sets of attributes after %v names, the limit is %d", got, want, limit)
		}
		series := 0
		for _, f := range m {
			series += len(f.Metric)
		}
		if half == 1 && series > before+before/10 {
			t.Errorf("%d series after %v names, %d after half of them", series, want, before)
		}
		before = series
	}
	r.promtool("promtool")
	t.Logf("%d names, %d series", n, before)
}

// model is a name that no provider has; one in ten is no name at all.
func model(i int) string {
	switch i % 50 {
	case 7:
		return fmt.Sprintf("line\nbreak %d", i)
	case 17:
		return fmt.Sprintf(`"}, {le="%d"} 1`, i)
	case 27:
		return fmt.Sprintf("long-%d-%s", i, strings.Repeat("x", 5000))
	case 37:
		return fmt.Sprintf("\x00\u202e模型%d", i)
	case 47:
		return fmt.Sprintf("# HELP x %d", i)
	}
	return fmt.Sprintf("model-%05d", i)
}

// apart is how many sets of attributes calls are kept apart by.
func apart(m trial.Samples) int {
	sets := map[string]bool{}
	for _, x := range m["tollwire_calls_total"].GetMetric() {
		var key strings.Builder
		for _, l := range x.Label {
			if !slices.Contains([]string{"status", "role", "relay"}, l.GetName()) {
				fmt.Fprintf(&key, "%s=%q,", l.GetName(), l.GetValue())
			}
		}
		sets[key.String()] = true
	}
	return len(sets)
}
