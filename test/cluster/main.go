//go:build linux

// Command cluster runs the agent as its users do: as the DaemonSet of
// deploy/daemonset on a real kubelet, containerd and runc, beside pods of unmodified
// curl and python that call models. It holds what the agent says, on /metrics and in
// its records, to the simulator's ledger. It needs root; see ./binaries for the rest.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	repo   string
	bin    string
	outage time.Duration
	keep   bool
	crowd  bool
}

func main() {
	var o options
	flag.StringVar(&o.repo, "repo", ".", "the repository, with bin/llmsim and bin/tollwire-image.tar made")
	home, _ := os.UserHomeDir()
	cache := cmp.Or(os.Getenv("TOLLWIRE_CACHE"), filepath.Join(home, ".cache", "tollwire"))
	flag.StringVar(&o.bin, "bin", filepath.Join(cache, "k8s", "bin"), "folder of Kubernetes' programs, as ./binaries builds them")
	flag.DurationVar(&o.outage, "outage", time.Minute, "how long the API server is away")
	flag.BoolVar(&o.crowd, "crowd", false, "not this, but the memory of the agent of one node among many, played by kwok")
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
	right, err := true, error(nil)
	if o.crowd {
		err = crowd(ctx, o, dir)
	} else {
		right, err = run(ctx, o, dir)
	}
	if err = errors.Join(err, sweep(dir)); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
	}
	if err != nil || !right {
		os.Exit(1)
	}
}

// round is how many calls each program makes in one part of the test.
var round = map[string]int{"planner": 20, "critic": 12, "writer": 24, "summariser": 24, "archive": 4, "sampler": 4, "report": 8}

// completions is how many pods a job has; each of their containers makes one call.
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
	t.n = newNode(dir, o.bin)
	defer t.n.stop()
	if err := t.n.boot(ctx); err != nil {
		return false, err
	}
	t.say("etcd, kube-apiserver, kubelet, containerd and runc are up")
	if t.models, err = startModels(o, dir); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, t.models.Stop(syscall.SIGTERM)) }()

	v := &verdict{}
	for _, part := range []func(context.Context, *verdict) error{
		t.begin, t.first, t.runtime, t.replaced, t.ruled, t.capabilities, t.probed, t.away, t.both, t.audit, t.uninstall,
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

// begin starts the labelled pods and a program of the machine's own, which connect, and
// then the agent.
func (t *trialRun) begin(ctx context.Context, _ *verdict) error {
	if err := t.n.apply(ctx, "programs.yaml", nil); err != nil {
		return err
	}
	if err := t.pods(ctx, "labelled.yaml", "planner/planner", "planner/critic", "writer/main"); err != nil {
		return err
	}
	if err := t.onHost(ctx); err != nil {
		return err
	}
	t.say("two labelled pods and a program in none are up, connected")
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
		err := await(ctx, c, func() error {
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

// onHost starts a program that is in no pod, as if systemd had started it.
func (t *trialRun) onHost(ctx context.Context) error {
	root := cgroupRoots()[0]
	if u := "/sys/fs/cgroup/unified"; slices.Contains(cgroupRoots(), u) {
		root = u
	}
	unit := filepath.Join(root, filepath.Base(t.n.dir), "system.slice", "report.service")
	if err := os.MkdirAll(unit, 0o755); err != nil {
		return err
	}
	program := filepath.Join(t.n.dir, "calls.py")
	text, err := t.n.kubectl(ctx, "get", "configmap", "programs", "-o", `jsonpath={.data.calls\.py}`)
	if err == nil {
		err = os.WriteFile(program, []byte(text), 0o644)
	}
	if err != nil {
		return err
	}
	_, err = t.n.startIn(unit, "report", []string{"PLAN=" + plan, "POD=" + host, "CONTAINER=python", "NAME=report", "GATE=" + t.models.gate},
		"/usr/bin/python3", program)
	if err != nil {
		return err
	}
	return await(ctx, "report", func() error {
		if said := t.n.tail("report"); said != "ready" {
			return fmt.Errorf("it says %q", said)
		}
		return nil
	})
}

// job makes the pods that call once and are gone.
func (t *trialRun) job(ctx context.Context) error {
	v := t.values()
	v["Completions"] = completions
	t.models.once += 2 * completions
	return t.n.apply(ctx, "job.yaml", v)
}

// cron makes a cron job and its job, as its controller would; the pods call once.
func (t *trialRun) cron(ctx context.Context) error {
	if err := t.n.apply(ctx, "cronjob.yaml", t.values()); err != nil {
		return err
	}
	t.models.once++
	_, err := t.n.kubectl(ctx, "create", "job", "nightly-2", "--from=cronjob/nightly")
	return err
}

// exec makes calls by kubectl exec in the deployment's pod, as POD/CONTAINER and what
// is added to that. The programs live for a while, so that a busy machine's agent finds
// their name: of what is gone before that only the cgroup tells.
func (t *trialRun) exec(ctx context.Context, added string) error {
	for range 3 {
		t.models.once++
		_, err := t.n.kubectl(ctx, "exec", "deploy/summariser", "--",
			"sh", "-c", `PLAN=$1 exec sh /programs/calls.sh once "$2"`, "sh", slow, added)
		if err != nil {
			return err
		}
	}
	return nil
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

// first is a round with everything in order: a deployment, a stateful set and a daemon
// set start after the agent, programs are executed in a pod, and a job's pods end at once.
func (t *trialRun) first(ctx context.Context, v *verdict) error {
	if err := t.pods(ctx, "unlabelled.yaml", "summariser-/app", "archive-/app", "sampler-/app"); err != nil {
		return err
	}
	if err := errors.Join(t.job(ctx), t.exec(ctx, ""), t.calls(0)); err != nil {
		return err
	}
	if err := t.recorded(ctx, "deployment, stateful set, daemon set, kubectl exec and a job after the agent"); err != nil {
		return err
	}
	library, err := t.agent.oneInode(ctx, v)
	t.say("%s is one inode in all containers' overlays, tapped once", library)
	return err
}

// away is a round while the API server is away, ended in good order, so that nobody lists
// anew but because of 410: it comes back without the past, and from where the agent's watch
// had come to, before the last change, it no longer goes on.
func (t *trialRun) away(ctx context.Context, _ *verdict) error {
	if _, err := t.n.kubectl(ctx, "annotate", "namespace", "default", "test=away"); err != nil {
		return err
	}
	t.n.api.stop()
	t.say("the API server is gone")
	if err := t.calls(t.outage); err != nil {
		return err
	}
	if err := t.recorded(ctx, fmt.Sprintf("API server away for %v", t.outage)); err != nil {
		return err
	}
	// While it reads its roles it would refuse all.
	t.n.more = map[string][]string{"apiserver": {"--authorization-mode=AlwaysAllow"}}
	defer func() { t.n.more = nil }()
	if err := t.n.serve(ctx); err != nil {
		return err
	}
	return t.agent.fails(ctx, "expired", true)
}

// replaced is a round after the DaemonSet's pod was deleted and made again, of which the
// API server refuses the new one all that it asks for.
func (t *trialRun) replaced(ctx context.Context, _ *verdict) error {
	if _, err := t.n.kubectl(ctx, "delete", "clusterrolebinding", "tollwire"); err != nil {
		return err
	}
	if err := t.agent.replace(ctx); err != nil {
		return err
	}
	t.say("the agent's pod is replaced by %s, which may not list pods", t.agent.pod)
	if err := errors.Join(t.cron(ctx), t.calls(0)); err != nil {
		return err
	}
	if _, err := t.models.served(ctx); err != nil {
		return err
	}
	if err := t.agent.fails(ctx, "forbidden", false); err != nil {
		return err
	}
	if _, err := t.n.kubectl(ctx, "apply", "-f", filepath.Join(t.repo, "deploy/daemonset/clusterrole.yaml")); err != nil {
		return err
	}
	return t.recorded(ctx, "agent replaced and refused for a while, connections older than it")
}

// ruled gives the running agent another rule by its ConfigMap; probed makes the calls
// that it is for. In between it takes its way to the pod.
func (t *trialRun) ruled(ctx context.Context, _ *verdict) error {
	const key = "config.yaml"
	config, err := t.n.kubectl(ctx, "-n", "tollwire", "get", "configmap", "tollwire", "-o", `jsonpath={.data.config\.yaml}`)
	if err != nil {
		return err
	}
	const rule = "attribution:\n  rules: [{name: probe, match: {workload: summariser, exe: curl}, node: probe}]\n"
	patch, err := json.Marshal(map[string]any{"data": map[string]string{key: strings.Replace(config, "attribution:\n", rule, 1)}})
	if err != nil {
		return err
	}
	_, err = t.n.kubectl(ctx, "-n", "tollwire", "patch", "configmap", "tollwire", "--type=merge", "-p", string(patch))
	return err
}

func (t *trialRun) probed(ctx context.Context, _ *verdict) error {
	err := await(ctx, "the changed ConfigMap", func() error {
		s, err := t.agent.scrape(ctx)
		if err == nil && s.Sum("tollwire_config_reloads_total") != 1 {
			err = fmt.Errorf("%.0f reloads, %.0f refused", s.Sum("tollwire_config_reloads_total"), s.Sum("tollwire_config_errors_total"))
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := t.exec(ctx, "/probe/rule:probe"); err != nil {
		return err
	}
	return t.recorded(ctx, "a rule by a changed ConfigMap")
}

// both is a round that the agent, started while the API server accepts and does not
// answer, and then is away, must hold until it comes back. It knows no pod, and waits
// for their names for a minute: the calls are made in the outage's last seconds.
func (t *trialRun) both(ctx context.Context, _ *verdict) error {
	const last = 15 * time.Second
	if err := t.n.api.hang(); err != nil {
		return err
	}
	gone := time.Now()
	if err := t.agent.restartProcess(ctx); err != nil {
		return err
	}
	t.say("the agent is restarted while the API server does not answer")
	if err := t.agent.fails(ctx, "timeout", false); err != nil {
		return err
	}
	t.n.api.kill()
	t.say("the API server is gone")
	time.Sleep(t.outage - last - time.Since(gone))
	if err := t.calls(last); err != nil {
		return err
	}
	if err := t.n.serve(ctx); err != nil {
		return err
	}
	return t.recorded(ctx, fmt.Sprintf("agent restarted while the API server is away for %.0f s", time.Since(gone).Seconds()))
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
