// Package e2e runs the agent as users run it, beside the provider simulator and
// real, unmodified clients, and holds what it says to the simulator's ledger and
// to what the clients saw. It needs root.
package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/tollwire/tollwire/cmd/llmsim/ledgercheck"
	"github.com/tollwire/tollwire/cmd/llmsim/sim"
	"github.com/tollwire/tollwire/internal/clients"
	"github.com/tollwire/tollwire/internal/trial"
)

var bin = struct{ agent, llmsim string }{"../bin/tollwire", "../bin/llmsim"}

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Geteuid() != 0 || testing.Short() {
		fmt.Println("e2e: skipped: attaches, and so needs root and some minutes; make test-root runs it")
		os.Exit(0)
	}
	for out, pkg := range map[string]string{bin.agent: "../cmd/agent", bin.llmsim: "../cmd/llmsim"} {
		if b, err := exec.Command("go", "build", "-o", out, pkg).CombinedOutput(); err != nil {
			fmt.Printf("e2e: build %s: %v\n%s", pkg, err, b)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// setup is a simulator and the clients of this machine.
type setup struct {
	*testing.T
	ctx      context.Context
	sim      *trial.Sim
	programs []clients.Client
	running  *trial.Agent // nil before it was started
	ours     map[int]bool // processes that the test started: others of the machine may call models too
	keeper   *clients.Run // a curl that waits for good
}

func start(t *testing.T, simArgs ...string) *setup {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	programs, err := clients.All(ctx, filepath.Join(cache, "tollwire", "clients"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := trial.StartSim(bin.llmsim, t.TempDir(), simArgs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	})
	return &setup{T: t, ctx: ctx, sim: s, programs: programs, ours: map[int]bool{s.PID(): true}}
}

// program returns one of the clients.
func (s *setup) program(name string) *clients.Client {
	s.Helper()
	i := slices.IndexFunc(s.programs, func(c clients.Client) bool { return c.Name == name })
	if i < 0 {
		s.Fatalf("no client %q on this machine", name)
	}
	return &s.programs[i]
}

// agent starts the agent; at the end of the test its books are balanced and it is stopped.
func (s *setup) agent(args ...string) *trial.Agent {
	s.Helper()
	a, err := trial.StartAgent(s.ctx, bin.agent, s.TempDir(), args...)
	if err != nil {
		s.Fatal(err)
	}
	s.running = a
	s.Cleanup(func() {
		s.balanced(a)
		if err := a.Stop(syscall.SIGTERM); err != nil {
			s.Error(err)
		}
		if s.Failed() {
			s.Logf("the agent said:\n%s", a.Log())
		}
	})
	return a
}

// run starts a client. Unless it is to wait for its caller, it makes its calls at
// once; but a file that nobody had mapped before is given the moment it takes to be
// tapped. (How often a first request is faster is another test's question.)
func (s *setup) run(c *clients.Client, spec clients.Spec) *clients.Run {
	s.Helper()
	wait := spec.Wait
	spec.Wait = wait || len(spec.Before) == 0 || c.Name != "curl"
	if !spec.Wait {
		s.keepTapped(c, spec)
	}
	r, err := c.Start(s.ctx, spec)
	if err != nil {
		s.Fatal(err)
	}
	s.ours[r.PID] = true
	if !spec.Wait {
		return r
	}
	if err := r.Ready(s.ctx); err != nil {
		s.Fatal(err)
	}
	if !wait {
		if s.running != nil && spec.CA != "" {
			if err := s.running.Tapped(s.ctx, r.PID); err != nil {
				s.Fatal(err)
			}
		}
		if err := r.Go(); err != nil {
			s.Fatal(err)
		}
	}
	return r
}

// keepTapped keeps the libraries of a client that cannot wait mapped, and so tapped.
func (s *setup) keepTapped(c *clients.Client, spec clients.Spec) {
	s.Helper()
	if s.keeper != nil || s.running == nil || spec.CA == "" {
		return
	}
	spec.Before, spec.Wait = nil, true
	r, err := c.Start(s.ctx, spec)
	if err != nil {
		s.Fatal(err)
	}
	s.keeper = r
	s.Cleanup(func() {
		r.Kill()
		r.Wait()
	})
	if err := errors.Join(r.Ready(s.ctx), s.running.Tapped(s.ctx, r.PID)); err != nil {
		s.Fatal(err)
	}
}

// finish waits for a client, all of whose calls must have gone well by its own account.
func (s *setup) finish(r *clients.Run) *clients.Result {
	s.Helper()
	res, err := r.Wait()
	if err != nil {
		s.Fatal(err)
	}
	if res.ExitCode != 0 {
		s.Errorf("client ended with %d: %s", res.ExitCode, res.Stderr)
	}
	for _, c := range res.Calls {
		if !c.OK {
			s.Errorf("call %d failed for the client itself: %d %s", c.Index, c.Status, c.Error)
		}
	}
	return res
}

// ledger returns the n calls that the simulator served.
func (s *setup) ledger(n int) []*sim.Entry {
	s.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		all, err := s.sim.Ledger()
		if err != nil {
			s.Fatal(err)
		}
		if len(all) >= n {
			return all
		}
		if time.Now().After(deadline) {
			s.Fatalf("the ledger has %d calls, want %d", len(all), n)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// matches holds the records of one role to the ledger's n calls.
func (s *setup) matches(a *trial.Agent, role string, n int) []*ledgercheck.Record {
	s.Helper()
	ledger := s.ledger(n)
	records := s.await(a, role, n)
	o := ledgercheck.Options{Role: role, Price: trial.Price}
	for _, m := range ledgercheck.Check(ledger, records, o).Mismatches {
		s.Errorf("%s: %s", role, m)
	}
	return records
}

// await returns the records of the test's own programs' calls to models, once n of them are of the
// given role or no more are to be expected.
func (s *setup) await(a *trial.Agent, role string, n int) (ours []*ledgercheck.Record) {
	s.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		all, err := a.Records()
		if err != nil {
			s.Fatal(err)
		}
		ours = slices.DeleteFunc(all, func(r *ledgercheck.Record) bool { return !s.ours[r.PID] || r.API != "" })
		have := 0
		for _, r := range ours {
			if r.Role == role {
				have++
			}
		}
		if have >= n || time.Now().After(deadline) {
			return ours
		}
	}
}

func (s *setup) scrape(a *trial.Agent) trial.Samples {
	s.Helper()
	m, err := a.Scrape(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	return m
}

// balanced: seen = decoded + ignored + dropped, once nothing is in flight. On a machine
// with traffic of its own that moment may not come: programs may be between their calls,
// or have written the first bytes of what may become a head, up to seven a connection.
func (s *setup) balanced(a *trial.Agent) {
	s.Helper()
	const patience, heads = 2 * time.Second, 8 * 7
	var seen, fates float64
	for began := time.Now(); time.Since(began) < 5*patience; time.Sleep(20 * time.Millisecond) {
		m, err := a.Scrape(s.ctx)
		if err != nil {
			s.Errorf("scrape: %v", err)
			return
		}
		left := func(labels ...string) float64 {
			seen, fates = m.Sum("tollwire_capture_seen_bytes_total", labels...), m.Sum("tollwire_capture_bytes_total", labels...)
			return seen - fates
		}
		sockets := left("source", "socket.fentry") + left("source", "socket.kprobe") + left("source", "socket.tracepoint")
		all := left()
		if all == 0 {
			return
		}
		if time.Since(began) > patience && all == sockets && 0 < all && all <= heads {
			s.Logf("%.0f bytes of sockets are held back or under way", all)
			return
		}
	}
	s.Errorf("seen %.0f bytes, decoded + ignored + dropped %.0f", seen, fates)
}

// dropped is how many bytes were dropped, but for those that the kernel told no program of
// (docs/kernels.md): they may be another program's, and the calls of this one say "lost".
func (s *setup) dropped(a *trial.Agent) float64 {
	s.Helper()
	m := s.scrape(a)
	const bytes = "tollwire_capture_bytes_total"
	return m.Sum(bytes, "fate", "dropped") - m.Sum(bytes, "fate", "dropped", "reason", "missed")
}

// inStreams returns once the simulator is in mid-stream of n answers over TLS.
func (s *setup) inStreams(n int) {
	s.Helper()
	const begun = 2000 // bytes: a head, and some events
	streams := func() (now int) {
		resp, err := http.Get(s.sim.Plain + "/_conns")
		if err != nil {
			s.Fatal(err)
		}
		defer resp.Body.Close()
		for d := json.NewDecoder(resp.Body); ; {
			var c sim.Conn
			if err := d.Decode(&c); errors.Is(err, io.EOF) {
				return now
			} else if err != nil {
				s.Fatal(err)
			}
			if c.TLS != "" && !c.Closed && c.Written > begun {
				now++
			}
		}
	}
	for deadline := time.Now().Add(20 * time.Second); streams() < n; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("%d streams are under way, want %d", streams(), n)
		}
	}
}

// both are the calls that every client makes: two providers, unary and streamed.
func both(sim string) (calls []clients.Call) {
	for _, provider := range []string{"openai", "anthropic"} {
		for _, stream := range []bool{false, true} {
			calls = append(calls, clients.Call{Provider: provider, Stream: stream, PromptBytes: 2000, Sim: sim})
		}
	}
	return calls
}

// programs are the ids of the BPF programs that a process holds, or that its links run.
func programs(t *testing.T, pid int) (ids []ebpf.ProgramID) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		info, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue // it was closed
		} else if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(info)) {
			var id ebpf.ProgramID
			if n, _ := fmt.Sscanf(line, "prog_id:%d", &id); n == 1 && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// loaded are those of the programs that are in the kernel.
func loaded(t *testing.T, ids []ebpf.ProgramID) (left []ebpf.ProgramID) {
	t.Helper()
	for _, id := range ids {
		p, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		p.Close()
		left = append(left, id)
	}
	return left
}
