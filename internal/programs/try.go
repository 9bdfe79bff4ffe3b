package programs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/tollwire/tollwire/cmd/llmsim/ledgercheck"
	"github.com/tollwire/tollwire/cmd/llmsim/sim"
	"github.com/tollwire/tollwire/internal/trial"
)

// minPrompt is the shortest prompt of a try, in bytes; each call's is step longer than
// the one before, so that it is known by its length.
const (
	minPrompt = 72_000
	step      = 3_000
)

// Outcome is how a program's calls were seen.
type Outcome struct {
	Tapped  bool     // its executable was
	Calls   int      // made
	Exact   int      // that have one record each that says what the simulator served
	Ciphers []string // that were used
	// Late is how far the first content of each answer, as the agent gives it, is from
	// the moment the simulator wrote it.
	Late  ledgercheck.Errors
	Wrong []string // in words
}

// Try has the program make n calls at once, each in a process of its own, to the
// simulator, and holds the agent's records to the simulator's ledger. env is added to
// the processes' environment.
func (in *Installed) Try(ctx context.Context, agent *trial.Agent, llm *trial.Sim, n int, env ...string) (*Outcome, error) {
	out := &Outcome{Calls: n}
	if err := in.Tap(ctx, agent); err != nil {
		out.Wrong = append(out.Wrong, err.Error())
		return out, nil
	}
	out.Tapped = true
	before, err := llm.Ledger()
	if err != nil {
		return nil, err
	}
	pids := make([]int, n)
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		home, err := os.MkdirTemp("", "tollwire-"+in.Name+"-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(home)
		cmd, err := in.Call(ctx, home, llm.URL, llm.CA, minPrompt+i*step)
		if err != nil {
			return nil, err
		}
		cmd.Env = append(cmd.Env, env...)
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			return nil, fmt.Errorf("start %v: %w", in, err)
		}
		pids[i] = cmd.Process.Pid
		wg.Go(func() {
			if err := cmd.Wait(); err != nil {
				errs[i] = fmt.Errorf("call %d of %v for the program itself: %w\n%s", i, in, err, tail(said.Bytes()))
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			out.Wrong = append(out.Wrong, err.Error())
		}
	}
	all, err := llm.Ledger()
	if err != nil {
		return nil, err
	}
	served := all[len(before):]
	records, err := await(ctx, agent, pids, len(served))
	if err != nil {
		return nil, err
	}
	in.compare(out, served, records, pids)
	for _, e := range served {
		if !slices.Contains(out.Ciphers, e.Cipher) {
			out.Ciphers = append(out.Ciphers, e.Cipher)
		}
	}
	return out, nil
}

func tail(b []byte) []byte { return b[max(0, len(b)-2000):] }

// Tap returns once the program's executable is tapped. A run that ends before the
// agent has opened its file leaves nothing to look at, and so is made again.
func (in *Installed) Tap(ctx context.Context, agent *trial.Agent) error {
	for range 20 {
		if err := in.Idle(ctx).Run(); err != nil {
			return fmt.Errorf("run %v: %w", in, err)
		}
		wait, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := agent.TappedFile(wait, in.Path)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("%s was not tapped", in.Path)
}

// await returns the client's records of these processes, once there are n or no more
// are to be expected.
func await(ctx context.Context, agent *trial.Agent, pids []int, n int) (ours []*ledgercheck.Record, err error) {
	for deadline := time.Now().Add(10 * time.Second); ; {
		all, err := agent.Records()
		if err != nil {
			return nil, err
		}
		ours = slices.DeleteFunc(all, func(r *ledgercheck.Record) bool {
			return r.Role != "client" || !slices.Contains(pids, r.PID)
		})
		if len(ours) >= n || time.Now().After(deadline) || ctx.Err() != nil {
			return ours, ctx.Err()
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// compare holds the records to what was served, and each to the process that made it.
func (in *Installed) compare(out *Outcome, served []*sim.Entry, records []*ledgercheck.Record, pids []int) {
	if len(served) != len(pids) {
		out.Wrong = append(out.Wrong, fmt.Sprintf("%v made %d calls, want %d", in, len(served), len(pids)))
	}
	// The longer prompt is the later process's.
	slices.SortFunc(served, func(a, b *sim.Entry) int { return int(a.RequestBytes - b.RequestBytes) })
	for _, e := range served {
		e.Provider = "" // of an address nobody knows whose it is
	}
	report := ledgercheck.Check(served, records, ledgercheck.Options{})
	out.Wrong = append(out.Wrong, report.Mismatches...)
	for i, p := range report.Pairs {
		if p.Record == nil || len(p.Diffs) > 0 {
			continue
		}
		var wrong []string
		if want := "aead." + in.Library; p.Record.Source != want {
			wrong = append(wrong, fmt.Sprintf("seen by %s, want %s", p.Record.Source, want))
		}
		if p.Record.LostBytes != 0 {
			wrong = append(wrong, fmt.Sprintf("%d bytes lost", p.Record.LostBytes))
		}
		if p.Entry.RequestBytes < minPrompt {
			wrong = append(wrong, fmt.Sprintf("a request of %d bytes, want %d", p.Entry.RequestBytes, minPrompt))
		}
		if i < len(pids) && p.Record.PID != pids[i] {
			wrong = append(wrong, fmt.Sprintf("booked to process %d, made by %d", p.Record.PID, pids[i]))
		}
		if len(wrong) == 0 {
			out.Exact++
		}
		if contents := p.Entry.Contents(); p.Record.FirstContent != nil && len(contents) > 0 {
			sent := p.Entry.Started.Add(time.Duration(contents[0] - p.Entry.FirstByte))
			read := p.Record.Time.Add(time.Duration(*p.Record.FirstContent * 1e9))
			out.Late.Add(read.Sub(sent), 0)
		}
		for _, w := range wrong {
			out.Wrong = append(out.Wrong, p.Entry.ID+": "+w)
		}
	}
}
