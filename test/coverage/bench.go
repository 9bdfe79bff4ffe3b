package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tollwire/tollwire/cmd/llmsim/ledgercheck"
	"github.com/tollwire/tollwire/cmd/llmsim/sim"
	"github.com/tollwire/tollwire/internal/trial"
)

// plan is how the simulator answers: slow enough that timing means something.
const plan = "tokens=40;rate=100;first=50ms"

// bench runs programs with and without the agent.
type bench struct {
	agent, llmsim string
	rounds        int
}

// row is what is known of one program in the end.
type row struct {
	*ready
	runs    [2][]run // without the agent, with it
	pairs   []ledgercheck.Pair
	missed  int      // calls that were not seen, the program being known to the agent
	first   []bool   // of each round: its first call is there
	late    int      // first calls on a connection that the agent says is older than its tap
	sources []string // taps that saw it
	reason  string   // what the agent says of the program when it is not seen
}

// run is one run of a program.
type run struct {
	exit  int
	took  time.Duration
	calls int    // in the ledger
	said  string // what it printed
	first bool   // of its round
}

func (b *bench) run(ctx context.Context, programs []*ready) ([]*row, error) {
	dir, err := os.MkdirTemp("", "tollwire-coverage-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	s, err := trial.StartSim(b.llmsim, filepath.Join(dir, "sim"), "--plan", plan)
	if err != nil {
		return nil, err
	}
	defer s.Stop(syscall.SIGTERM)
	rows := make([]*row, len(programs))
	for i, p := range programs {
		rows[i] = &row{ready: p}
	}
	for round := range b.rounds + more {
		for _, r := range rows {
			if r.wrong != nil || round >= b.rounds && r.slowed() <= bearable {
				continue
			}
			fmt.Printf("coverage: round %d of %d, %s\n", round+1, max(round+1, b.rounds), r.name)
			if err := b.round(ctx, s, dir, r); err != nil {
				return nil, fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	return rows, nil
}

// more is how many more rounds a program has that was slower with the agent than is
// bearable, on a machine where one that is not even tapped may be; all its runs count.
const more = 3

// again is how often a program runs once more in each round, without the agent and with it.
const again = 3

// round runs the program without the agent, and then with one of its own: so near to
// each other in time that a machine whose speed drifts tells them alike.
func (b *bench) round(ctx context.Context, s *trial.Sim, dir string, r *row) (err error) {
	if err := r.series(ctx, s, dir, nil); err != nil {
		return err
	}
	home, err := os.MkdirTemp(dir, "agent-")
	if err != nil {
		return err
	}
	agent, err := trial.StartAgent(ctx, b.agent, home)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, agent.Stop(syscall.SIGTERM)) }()
	if r.tapped != nil {
		if err := r.tapped(ctx, agent); err != nil {
			return err
		}
	}
	return r.series(ctx, s, dir, agent)
}

// series runs the program once, and again, when its files are known, to the agent and
// in memory.
func (r *row) series(ctx context.Context, s *trial.Sim, dir string, agent *trial.Agent) error {
	for i := range 1 + again {
		if err := r.try(ctx, s, dir, agent, i == 0); err != nil {
			return err
		}
	}
	return nil
}

// try runs the program once, and judges what the agent makes of it. first: since the
// agent began.
func (r *row) try(ctx context.Context, s *trial.Sim, dir string, agent *trial.Agent, first bool) error {
	before, err := s.Ledger()
	if err != nil {
		return err
	}
	one, err := r.once(ctx, s, dir)
	if err != nil {
		return err
	}
	var calls []*sim.Entry
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		all, err := s.Ledger()
		if err != nil {
			return err
		}
		if calls = all[len(before):]; len(calls) > 0 || time.Now().After(deadline) {
			break
		}
	}
	one.calls, one.first = len(calls), first
	r.runs[btoi(agent != nil)] = append(r.runs[btoi(agent != nil)], *one)
	if agent == nil {
		return nil
	}
	return r.judge(ctx, agent, calls, first)
}

// once runs the program.
func (r *row) once(ctx context.Context, s *trial.Sim, dir string) (*run, error) {
	home, err := os.MkdirTemp(dir, "home-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(home)
	port := s.URL[strings.LastIndexByte(s.URL, ':')+1:]
	cmd, err := r.command(r.path, place{url: "https://localhost:" + port, port: port, ca: s.CA, home: home})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &out, home
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer stop.Stop()
	cmd.Wait()
	return &run{exit: cmd.ProcessState.ExitCode(), took: time.Since(began), said: out.String()}, ctx.Err()
}

// judge holds the agent's records to the calls that the program made.
func (r *row) judge(ctx context.Context, agent *trial.Agent, calls []*sim.Entry, first bool) error {
	if len(calls) == 0 {
		return nil
	}
	ours := func(all []*ledgercheck.Record) []*ledgercheck.Record {
		ids := make(map[string]bool)
		for _, e := range calls {
			ids[e.ID] = true
		}
		return slices.DeleteFunc(all, func(c *ledgercheck.Record) bool { return c.Role != "client" || !ids[c.ResponseID] })
	}
	var seen []*ledgercheck.Record
	wait := 3 * time.Second
	if r.unseen != "" {
		wait = 300 * time.Millisecond
	}
	for deadline := time.Now().Add(wait); len(seen) < len(calls) && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		all, err := agent.Records()
		if err != nil {
			return err
		}
		seen = ours(all)
	}
	for _, e := range calls {
		e.Provider = "" // of an address nobody knows whose it is
	}
	for _, c := range seen {
		if first && c.Partial == "late_attach" { // which the ledger cannot know
			r.late++
			c.Partial = ""
		}
	}
	pairs := ledgercheck.Check(calls, seen, ledgercheck.Options{}).Pairs
	r.pairs = append(r.pairs, pairs...)
	if first {
		r.first = append(r.first, pairs[0].Record != nil)
	} else {
		r.missed += len(calls) - len(seen)
	}
	for _, c := range seen {
		if !slices.Contains(r.sources, c.Source) {
			r.sources = append(r.sources, c.Source)
		}
	}
	if len(seen) == 0 && r.reason == "" {
		var err error
		r.reason, err = unobservable(ctx, agent, r.unseen)
		return err
	}
	return nil
}

// unobservable asks the agent why the program with that stack is not seen.
func unobservable(ctx context.Context, agent *trial.Agent, stack string) (string, error) {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, agent.Metrics+"/api/v1/unseen", nil)
		if err != nil {
			return "", err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return "", fmt.Errorf("ask the agent: %w", err)
		}
		var all []struct{ Stack, Reason string }
		err = json.NewDecoder(resp.Body).Decode(&all)
		resp.Body.Close()
		if err != nil {
			return "", fmt.Errorf("read what the agent cannot see: %w", err)
		}
		for _, u := range all {
			if u.Stack == stack {
				return u.Stack + ": " + u.Reason, nil
			}
		}
		if time.Now().After(deadline) || stack == "" {
			return "", nil
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
