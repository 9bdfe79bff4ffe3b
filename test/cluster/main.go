//go:build linux

// Command cluster runs the agent as its users do: as the DaemonSet of
// deploy/daemonset on a real kubelet, containerd and runc, beside pods of unmodified
// curl and python that call models. It holds what the agent says, on /metrics and in
// its records, to the simulator's ledger. It needs root; see ./binaries for the rest.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	repo   string
	bin    string
	outage time.Duration
	keep   bool
}

func main() {
	var o options
	flag.StringVar(&o.repo, "repo", ".", "the repository, with bin/llmsim and bin/tollwire-image.tar made")
	home, _ := os.UserHomeDir()
	cache := cmp.Or(os.Getenv("TOLLWIRE_CACHE"), filepath.Join(home, ".cache", "tollwire"))
	flag.StringVar(&o.bin, "bin", filepath.Join(cache, "k8s", "bin"), "folder of Kubernetes' programs, as ./binaries builds them")
	flag.DurationVar(&o.outage, "outage", time.Minute, "how long the API server is away")
	flag.BoolVar(&o.keep, "keep", false, "leave the folder with all logs")
	flag.Parse()
	for _, path := range []*string{&o.repo, &o.bin} {
		if abs, err := filepath.Abs(*path); err == nil {
			*path = abs
		}
	}

	dir := os.Getenv(inside)
	if dir == "" {
		code, err := contain(o)
		if err != nil {
			fmt.Fprintln(os.Stderr, "cluster:", err)
			code = 1
		}
		os.Exit(code)
	}
	os.Unsetenv(inside)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	right, err := run(ctx, o, dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
	}
	if err != nil || !right {
		os.Exit(1)
	}
}

// round is how many calls each program makes in one part of the test.
var round = map[string]int{"planner": 20, "critic": 12, "writer": 24, "summariser": 24}

// completions is how many pods a job has, of one call each.
const completions = 4

// trialRun is the test on its way.
type trialRun struct {
	options
	n      *node
	models *models
	agent  *daemonset
	start  time.Time
}

func run(ctx context.Context, o options, dir string) (right bool, err error) {
	t := &trialRun{options: o, start: time.Now()}
	if err := furnish(dir); err != nil {
		return false, err
	}
	t.n, err = boot(ctx, dir, o.bin)
	defer t.n.stop()
	if err != nil {
		return false, err
	}
	t.say("etcd, kube-apiserver, kubelet, containerd and runc are up")
	if t.models, err = startModels(o, dir); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, t.models.Stop(syscall.SIGTERM)) }()

	v := &verdict{}
	for _, part := range []func(context.Context, *verdict) error{
		t.begin, t.first, t.replaced, t.capabilities, t.away, t.both, t.audit, t.uninstall,
	} {
		if err := part(ctx, v); err != nil {
			return false, errors.Join(err, v.err())
		}
	}
	for _, p := range v.problems {
		fmt.Println("differs:", p)
	}
	fmt.Printf("cluster: %d calls, %d booked right, %d lost\n", v.calls, v.right, v.lost)
	return v.right == v.calls && len(v.problems) == 0, nil
}

func (t *trialRun) say(format string, args ...any) {
	fmt.Printf("%6.1f s  %s\n", time.Since(t.start).Seconds(), fmt.Sprintf(format, args...))
}

// begin starts the labelled pods, which connect, and then the agent.
func (t *trialRun) begin(ctx context.Context, _ *verdict) error {
	if err := t.n.apply(ctx, "programs.yaml", nil); err != nil {
		return err
	}
	if err := t.pods(ctx, "labelled.yaml", "planner/planner", "planner/critic", "writer/main"); err != nil {
		return err
	}
	t.say("two labelled pods are up, connected")
	var err error
	if t.agent, err = deploy(ctx, t.n, t.repo); err != nil {
		return err
	}
	t.say("the DaemonSet's pod %s is ready", t.agent.pod)
	return nil
}

// pods applies a manifest and waits until its containers are ready to call.
func (t *trialRun) pods(ctx context.Context, manifest string, containers ...string) error {
	if err := t.n.apply(ctx, manifest, t.values()); err != nil {
		return err
	}
	for _, c := range containers {
		pod, container := filepath.Split(c)
		err := await(ctx, 2*time.Minute, c, func() error {
			lines, err := t.n.said("default", filepath.Clean(pod), container)
			if err == nil && !slices.Contains(lines, logLine{"stdout", "ready"}) {
				err = fmt.Errorf("it says %v", lines)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *trialRun) values() map[string]any {
	return map[string]any{"Image": clientImage, "Models": modelAddress, "Gate": t.models.gate, "Plan": plan}
}

// job makes the pods that call once and are gone.
func (t *trialRun) job(ctx context.Context, name string) error {
	v := t.values()
	v["Job"], v["Completions"] = name, completions
	t.models.once += completions
	return t.n.apply(ctx, "job.yaml", v)
}

// calls lets every program make its share of a round's calls, spread over a time.
func (t *trialRun) calls(over time.Duration) error {
	const steps = 4
	for i := range steps {
		for name, n := range round {
			if err := t.models.ask(name, n*(i+1)/steps-n*i/steps); err != nil {
				return err
			}
		}
		time.Sleep(over / steps)
	}
	return nil
}

// recorded waits until all calls were served and the agent has recorded them.
func (t *trialRun) recorded(ctx context.Context, what string) error {
	if _, err := t.models.served(ctx); err != nil {
		return err
	}
	if err := t.agent.awaitRecords(ctx, t.models.Sim, t.models.asked()); err != nil {
		t.say("%s: %v", what, err) // the audit names those missing
		return nil
	}
	t.say("%s: %d calls so far", what, t.models.asked())
	return nil
}

// first is a round with everything in order: a deployment starts after the agent, and
// a job whose pods end at once.
func (t *trialRun) first(ctx context.Context, v *verdict) error {
	if err := t.pods(ctx, "unlabelled.yaml", "summariser-/app"); err != nil {
		return err
	}
	if err := errors.Join(t.job(ctx, "nightly-1"), t.calls(0)); err != nil {
		return err
	}
	if err := t.recorded(ctx, "a deployment and a job after the agent"); err != nil {
		return err
	}
	library, err := t.agent.oneInode(ctx, v)
	t.say("%s is one inode in all containers' overlays, tapped once", library)
	return err
}

// away is a round while the API server is away.
func (t *trialRun) away(ctx context.Context, _ *verdict) error {
	t.n.api.kill()
	t.say("the API server is gone")
	if err := t.calls(t.outage); err != nil {
		return err
	}
	if err := t.recorded(ctx, fmt.Sprintf("API server away for %v", t.outage)); err != nil {
		return err
	}
	return t.n.serve(ctx)
}

// replaced is a round after the DaemonSet's pod was deleted and made again.
func (t *trialRun) replaced(ctx context.Context, _ *verdict) error {
	if err := t.agent.replace(ctx); err != nil {
		return err
	}
	t.say("the agent's pod is replaced by %s", t.agent.pod)
	if err := errors.Join(t.job(ctx, "nightly-2"), t.calls(0)); err != nil {
		return err
	}
	return t.recorded(ctx, "agent replaced, connections older than it")
}

// both is a round that the agent, started while the API server is away, must hold
// until it comes back.
func (t *trialRun) both(ctx context.Context, _ *verdict) error {
	t.n.api.kill()
	if err := t.agent.restartProcess(ctx); err != nil {
		return err
	}
	t.say("the agent is restarted while the API server is away")
	if err := t.calls(5 * time.Second); err != nil {
		return err
	}
	if _, err := t.models.served(ctx); err != nil {
		return err
	}
	if err := t.n.serve(ctx); err != nil {
		return err
	}
	return t.recorded(ctx, "agent restarted while the API server is away")
}

// audit holds all that the agents said to the ledger.
func (t *trialRun) audit(ctx context.Context, v *verdict) error {
	ledger, err := t.models.Ledger()
	if err != nil {
		return err
	}
	if len(ledger) != t.models.asked() {
		v.problem("the ledger has %d calls, %d were asked for", len(ledger), t.models.asked())
	}
	fmt.Println()
	return v.audit(ctx, os.Stdout, t.agent, ledger)
}

// capabilities holds the agent to what the DaemonSet says that it needs.
func (t *trialRun) capabilities(ctx context.Context, v *verdict) error {
	return capabilities(ctx, os.Stdout, t.agent, v)
}

// uninstall takes the DaemonSet away as its README says, and looks for what is left.
func (t *trialRun) uninstall(ctx context.Context, v *verdict) error {
	if _, err := t.n.kubectl(ctx, "delete", "-k", filepath.Join(t.repo, "test/cluster/daemonset"), "--timeout=180s"); err != nil {
		return err
	}
	left, err := t.n.kubectl(ctx, "get", "namespaces,clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/name=tollwire", "-o", "name")
	if err != nil {
		return err
	}
	if left != "" {
		v.problem("after kubectl delete -k there is still %s", left)
	}
	if pid, err := t.agent.pid(); err == nil {
		v.problem("after kubectl delete -k process %d of the agent is still there", pid)
	}
	return nil
}
