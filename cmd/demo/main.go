// Command demo shows the main job: it runs the agent on real, unmodified clients
// that call the provider simulator over real TLS, prints what the agent saw, and
// holds every number to the simulator's ledger. It needs root.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/tollwire/tollwire/cmd/llmsim/ledgercheck"
	"github.com/tollwire/tollwire/internal/clients"
	"github.com/tollwire/tollwire/internal/trial"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	ok, err := demo(ctx, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// rules book each client's calls to a node of a graph, by what the process is.
const rules = `attribution:
  rules:
    - {name: shell,    graph: demo, node: shell-script, match: {exe: curl}}
    - {name: pipeline, graph: demo, node: pipeline,     match: {command: "* http *"}}
    - {name: agent,    graph: demo, node: agent,        match: {command: "* asyncio *"}}
    - {name: frontend, graph: demo, node: frontend,     match: {exe: node}}
    - {name: gateway,  graph: demo, node: gateway,      match: {exe: "go*-client"}}
`

// demo runs it all and reports whether every number was right.
func demo(ctx context.Context, out io.Writer) (ok bool, err error) {
	if os.Geteuid() != 0 {
		return false, errors.New("probes need root; run it by make demo, or with sudo")
	}
	dir, err := os.MkdirTemp("", "tollwire-demo-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Dir(must(os.Executable()))

	fmt.Fprintln(out, "demo: preparing real clients and the provider simulator …")
	programs, err := clients.All(ctx, filepath.Join(must(os.UserCacheDir()), "tollwire", "clients"))
	if err != nil {
		return false, err
	}
	llm, err := trial.StartSim(filepath.Join(bin, "llmsim"), filepath.Join(dir, "sim"))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, llm.Stop(syscall.SIGTERM)) }()

	// Half of the programs run before the agent does, half start after it; then all
	// make their calls at once.
	var runs []*clients.Run
	plain := map[int]bool{} // runs without TLS, by index
	start := func(c clients.Client, spec clients.Spec) error {
		r, err := c.Start(ctx, spec)
		if err == nil {
			err = r.Ready(ctx)
		}
		runs = append(runs, r)
		return err
	}
	for i, c := range programs {
		if i%2 == 0 {
			if err := start(c, work(llm.URL, llm.CA)); err != nil {
				return false, err
			}
		}
	}
	config := filepath.Join(dir, "tollwire.yaml")
	if err := os.WriteFile(config, []byte(rules), 0o644); err != nil {
		return false, err
	}
	agent, err := trial.StartAgent(ctx, filepath.Join(bin, "tollwire"), dir, "--config", config)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, agent.Stop(syscall.SIGTERM)) }()
	fmt.Fprintf(out, "demo: the agent is attached; metrics on %s/metrics\n", agent.Metrics)

	for i, c := range programs {
		if i%2 == 1 {
			if err := start(c, work(llm.URL, llm.CA)); err != nil {
				return false, err
			}
		}
		if c.Name == "curl" {
			spec := work(llm.Plain, "")
			spec.Tag = "curl (no TLS)"
			plain[len(runs)] = true
			if err := start(c, spec); err != nil {
				return false, err
			}
		}
	}
	for i, r := range runs {
		if !plain[i] {
			if err := agent.Tapped(ctx, r.PID); err != nil {
				return false, err
			}
		}
	}
	for _, r := range runs {
		if err := r.Go(); err != nil {
			return false, err
		}
	}
	timing := &ledgercheck.Timing{}
	var seen []clients.CallResult
	for _, r := range runs {
		res, err := r.Wait()
		if err != nil {
			return false, err
		}
		seen = append(seen, res.Calls...)
	}

	ledger, err := llm.Ledger()
	if err != nil {
		return false, err
	}
	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	records, err := agent.Await(wait, "client", len(ledger))
	if err != nil {
		return false, err
	}
	report := ledgercheck.Check(ledger, records, ledgercheck.Options{Price: trial.Price})
	timing.Against(seen, records)
	scrape, err := agent.Scrape(ctx)
	if err != nil {
		return false, err
	}
	return show(out, report, timing, scrape), nil
}

// work is what each client does: both providers, unary and streamed, with a prompt
// cache and reasoning, over one connection.
func work(url, ca string) clients.Spec {
	s := clients.Spec{BaseURL: url, CA: ca, KeepAlive: true, Wait: true}
	for _, provider := range []string{"openai", "anthropic"} {
		for _, stream := range []bool{false, true} {
			s.Calls = append(s.Calls, clients.Call{
				Provider: provider, Stream: stream, PromptBytes: 4000,
				Sim: "tokens=40;rate=400;first=30ms;jitter=0.3;cached=500",
			})
		}
	}
	return s
}

func show(out io.Writer, report *ledgercheck.Report, timing *ledgercheck.Timing, scrape trial.Samples) bool {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nPROGRAM\tTAP\tNODE\tMODEL\tKIND\tIN\tOUT\tFIRST TOKEN\tUSD\tLEDGER")
	cost := map[string]*big.Rat{}
	calls := map[string]int{}
	for _, p := range report.Pairs {
		r := p.Record
		if r == nil {
			fmt.Fprintf(w, "%s\t\t\t%s\t\t\t\t\t\tnot seen\n", p.Entry.Client, p.Entry.Served)
			continue
		}
		kind, verdict := "unary", "equal"
		if r.Stream {
			kind = "stream"
		}
		if len(p.Diffs) > 0 {
			verdict = strings.Join(p.Diffs, "; ")
		}
		in, outTokens := 0.0, 0.0
		for class, n := range r.Usage {
			switch class {
			case "output", "reasoning":
				outTokens += n
			default:
				in += n
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.0f\t%.0f\t%s\t%s\t%s\n", p.Entry.Client, r.Source, r.Node, r.ResponseModel, kind,
			in, outTokens, milliseconds(r.FirstContent), r.Cost, verdict)
		if usd, ok := new(big.Rat).SetString(r.Cost); ok {
			if cost[r.Node] == nil {
				cost[r.Node] = new(big.Rat)
			}
			cost[r.Node].Add(cost[r.Node], usd)
			calls[r.Node]++
		}
	}
	fmt.Fprintln(w, "\nNODE\tCALLS\tUSD\tUSD BY /metrics")
	nodes := make([]string, 0, len(cost))
	for n := range cost {
		nodes = append(nodes, n)
	}
	slices.Sort(nodes)
	equal := true
	for _, n := range nodes {
		metric := scrape.Sum("tollwire_cost_usd_total", "tollwire_node", n)
		want, _ := cost[n].Float64()
		if d := metric - want; d > 1e-9 || d < -1e-9 {
			equal = false
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%.9g\n", n, calls[n], strings.TrimRight(cost[n].FloatString(12), "0"), metric)
	}
	w.Flush()
	fmt.Fprintf(out, "\ntime to first token against the clients' own clocks: %v\n", &timing.FirstContent)
	for _, m := range report.Mismatches {
		fmt.Fprintln(out, "differs:", m)
	}
	if !equal {
		fmt.Fprintln(out, "differs: the cost on /metrics is not the sum of the records'")
	}
	dropped := scrape.Sum("tollwire_capture_bytes_total", "fate", "dropped")
	fmt.Fprintf(out, "demo: %d calls, %d match the ledger, %.0f bytes dropped\n", report.Calls, report.Matched, dropped)
	return report.OK() && equal && report.Calls > 0 && dropped == 0
}

func milliseconds(s *float64) string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", *s*1000)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
