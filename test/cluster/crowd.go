//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tollwire/tollwire/internal/trial"
)

// The crowd is a cluster of many nodes whose kubelets kwok plays: what it costs the
// agent of one of them to know its pods.
const (
	crowdPods  = 5000
	crowdNodes = 100
	crowdApps  = 10 // deployments that the pods are of
)

// most is how much more memory the agent may hold with Kubernetes than without, MiB.
const most = 24

// crowd makes the cluster, runs the agent of one node beside one that knows of no
// Kubernetes, then has every pod replaced, and holds both to what the API server says.
func crowd(ctx context.Context, o options, dir string) (err error) {
	t := &trialRun{options: o, start: time.Now()}
	if err := furnish(dir); err != nil {
		return err
	}
	t.n = newNode(dir, o.bin)
	defer t.n.stop()
	// Their own bounds are for clusters that have time; and kwok, which has none to spare,
	// may be late with its nodes' leases.
	qps := []string{"--kube-api-qps=1000", "--kube-api-burst=2000"}
	t.n.more = map[string][]string{"scheduler": qps, "controllers": append(qps, "--node-monitor-grace-period=15m")}
	if err := t.n.control(ctx); err != nil {
		return err
	}
	stages, err := files.ReadFile("crowd/kwok.yaml")
	if err == nil {
		err = t.n.write("kwok.yaml", stages)
	}
	if err != nil {
		return err
	}
	if _, err := t.n.start("kwok", o.bin+"/kwok", "--kubeconfig="+dir+"/kubeconfig", "--config="+dir+"/kwok.yaml", "--server-address=127.0.0.1:10247"); err != nil {
		return err
	}
	if err := t.populate(ctx); err != nil {
		return fmt.Errorf("%w\n%s", err, t.n.tail("kwok"))
	}
	t.say("%d pods run on %d nodes", crowdPods, crowdNodes)

	const node = "node-042"
	with, err := t.runAgent(ctx, "with", "kubernetes: {enabled: \"yes\", node: "+node+", kubeconfig: "+dir+"/kubeconfig}\n")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, with.Stop(syscall.SIGTERM)) }()
	without, err := t.runAgent(ctx, "without", "kubernetes: {enabled: \"no\"}\n")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, without.Stop(syscall.SIGTERM)) }()
	pods, err := t.known(ctx, with, node)
	if err != nil {
		return err
	}
	if _, _, err := t.compare(ctx, with, without, "at rest"); err != nil {
		return err
	}
	if _, err := t.n.kubectl(ctx, "rollout", "restart", "deployment"); err != nil {
		return err
	}
	if err := t.running(ctx); err != nil {
		return err
	}
	t.say("every pod was replaced")
	if pods, err = t.known(ctx, with, node); err != nil {
		return err
	}
	a, b, err := t.compare(ctx, with, without, "after that")
	if err != nil {
		return err
	}
	fmt.Printf("kwok: %d pods over %d nodes, the %d of one node known, %.1f MiB, %.1f MiB without\n", crowdPods, crowdNodes, pods, a, b)
	return nil
}

// populate makes nodes and deployments, and waits until all of their pods run.
func (t *trialRun) populate(ctx context.Context) error {
	v := map[string]any{"Replicas": crowdPods / crowdApps, "Policy": strings.Repeat("allow from=mesh to=self; ", 80)}
	var nodes, apps []string
	for i := range crowdNodes {
		nodes = append(nodes, fmt.Sprintf("node-%03d", i))
	}
	for i := range crowdApps {
		apps = append(apps, fmt.Sprintf("app-%d", i))
	}
	v["Nodes"], v["Deployments"] = nodes, apps
	b, err := render("crowd/cluster.yaml", v)
	if err != nil {
		return err
	}
	if _, err := t.n.kubectlWith(ctx, b, "create", "-f", "-"); err != nil {
		return err
	}
	return t.running(ctx)
}

// running waits until every deployment's pods are all new and ready.
func (t *trialRun) running(ctx context.Context) error {
	for i := range crowdApps {
		if _, err := t.n.kubectl(ctx, "rollout", "status", fmt.Sprintf("deployment/app-%d", i), "--timeout=10m"); err != nil {
			return err
		}
	}
	return nil
}

// runAgent starts an agent on this machine with a configuration.
func (t *trialRun) runAgent(ctx context.Context, name, config string) (*trial.Agent, error) {
	if err := t.n.write(name+"/config.yaml", []byte(config)); err != nil {
		return nil, err
	}
	dir := filepath.Join(t.n.dir, name)
	a, err := trial.StartAgent(ctx, filepath.Join(t.repo, "bin", "tollwire"), dir, "--config", filepath.Join(dir, "config.yaml"))
	if err != nil {
		return nil, fmt.Errorf("agent %s Kubernetes: %w", name, err)
	}
	return a, nil
}

// known waits until the agent knows as many pods as the API server names of the node,
// and none of the other nodes', and returns how many.
func (t *trialRun) known(ctx context.Context, a *trial.Agent, node string) (pods int, err error) {
	err = await(ctx, "the pods of "+node, func() error {
		out, err := t.n.kubectl(ctx, "get", "pods", "--field-selector", "spec.nodeName="+node, "-o", "name")
		if err != nil {
			return err
		}
		pods = len(strings.Fields(out))
		s, err := a.Scrape(ctx)
		if err != nil {
			return err
		}
		if got := s.Sum("tollwire_kubernetes_pods", "state", "alive"); int(got) != pods || pods == 0 {
			return fmt.Errorf("the agent knows %.0f, the API server %d", got, pods)
		}
		return nil
	})
	return pods, err
}

// compare holds the memory that Kubernetes costs to its bound.
func (t *trialRun) compare(ctx context.Context, with, without *trial.Agent, when string) (a, b float64, err error) {
	if a, b, err = settled(ctx, with.PID(), without.PID()); err != nil {
		return 0, 0, err
	}
	t.say("%s: %.1f MiB with Kubernetes, %.1f MiB without", when, a, b)
	if a-b > most {
		return 0, 0, fmt.Errorf("%s the agent holds %.1f MiB more with Kubernetes than without, at most %d are expected", when, a-b, most)
	}
	return a, b, nil
}

// settled waits until neither process has given memory back for ten seconds, as they do
// some time after what they needed it for, and returns what both hold then, MiB.
func settled(ctx context.Context, one, two int) (a, b float64, err error) {
	const pause, still, crumb = time.Second, 10, 0.5 // MiB

	least, lesser := math.Inf(1), math.Inf(1)
	for quiet := 0; quiet < still; quiet++ {
		select {
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		case <-time.After(pause):
		}
		if a, b, err = both(one, two); err != nil {
			return 0, 0, err
		}
		if a < least-crumb || b < lesser-crumb {
			quiet = 0
		}
		least, lesser = min(least, a), min(lesser, b)
	}
	return a, b, nil
}

var anonymous = regexp.MustCompile(`(?m)^RssAnon:\s+(\d+) kB$`)

// both returns what two processes hold in memory of their own, MiB.
func both(one, two int) (a, b float64, err error) {
	held := func(pid int) float64 {
		status, rerr := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		m := anonymous.FindSubmatch(status)
		if m == nil {
			err = errors.Join(err, rerr, fmt.Errorf("process %d says nothing of its memory", pid))
			return 0
		}
		kib, _ := strconv.ParseFloat(string(m[1]), 64)
		return kib / 1024
	}
	return held(one), held(two), err
}
