//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tollwire/tollwire/cmd/llmsim/sim"
	"github.com/tollwire/tollwire/internal/trial"
)

// plan is how each call is answered: some reasoning, some of the prompt from the cache.
const plan = "tokens=12;think=4;cached=20;rate=400;first=10ms"

// slow is plan for a program that lives as long as its call.
const slow = "tokens=12;think=4;cached=20;rate=400;first=2s"

// booking is where a call belongs.
type booking struct {
	Graph, Node, Service, Pod, Container string
	Adapter                              string // a label of the pod that the configuration copies
}

// workload is what a pod's controllers are called, those that it has.
type workload struct {
	Deployment  string `json:"k8s.deployment.name"`
	StatefulSet string `json:"k8s.statefulset.name"`
	DaemonSet   string `json:"k8s.daemonset.name"`
	Job         string `json:"k8s.job.name"`
	CronJob     string `json:"k8s.cronjob.name"`
}

// word is all that a record says of whose call it is.
type word struct {
	booking
	source   string // what names the node
	workload workload
}

// caller is a container that makes calls: for all pods whose name begins with pod.
type caller struct {
	pod, container string
	word           // but for the pod's whole name
	// connected is the first agent, from 1, that finds the program's connections there;
	// 0 where it makes one for each call.
	connected int
}

// host is the pod of who is in none.
const host = "host"

// callers is the truth that the agent must find out.
var callers = []caller{
	{"planner", "planner", word{booking{Graph: "research", Node: "planner", Service: "planner"}, "label", workload{}}, 0},
	{"planner", "critic", word{booking{Graph: "research", Node: "critic", Service: "planner"}, "annotation", workload{}}, 1},
	{"writer", "main", word{booking{Graph: "research", Node: "writer", Service: "writer-api", Adapter: "sql-lora"}, "label", workload{}}, 1},
	{"summariser-", "app", word{booking{Node: "summariser", Service: "summariser"}, "workload", workload{Deployment: "summariser"}}, 2},
	{"archive-", "app", word{booking{Node: "archive", Service: "archive"}, "workload", workload{StatefulSet: "archive"}}, 0},
	{"sampler-", "app", word{booking{Node: "sampler", Service: "sampler"}, "workload", workload{DaemonSet: "sampler"}}, 0},
	{"nightly-1-", "once", word{booking{Node: "nightly-1", Service: "nightly-1"}, "workload", workload{Job: "nightly-1"}}, 0},
	{"nightly-1-", "check", word{booking{Node: "checker", Service: "nightly-1"}, "annotation", workload{Job: "nightly-1"}}, 0},
	{"nightly-2-", "once", word{booking{Node: "nightly", Service: "nightly"}, "workload", workload{Job: "nightly-2", CronJob: "nightly"}}, 0},
	{host, "python", word{booking{Node: "report", Service: "report"}, "unit", workload{}}, 1},
}

// truth is who made a call of the ledger, and what must be said of it. The caller names
// itself as POD/CONTAINER, and adds /NODE/SOURCE where that one call is another node's.
func truth(e *sim.Entry) (caller, error) {
	name := strings.Split(e.Client, "/")
	for _, c := range callers {
		if len(name) < 2 || !strings.HasPrefix(name[0], c.pod) || name[1] != c.container {
			continue
		}
		if c.pod != host {
			c.Pod, c.Container = name[0], name[1]
		}
		if len(name) == 4 {
			c.Node, c.source = name[2], name[3]
		}
		return c, nil
	}
	return caller{}, fmt.Errorf("call by %q, which this test did not start", e.Client)
}

// models is the simulator, and the gate through which it tells each program how many
// calls to make.
type models struct {
	*trial.Sim
	gate  string         // folder mounted into the pods
	calls map[string]int // asked for so far, by the gate's file
	once  int            // by programs that make one call and end
}

func startModels(o options, dir string) (*models, error) {
	s, err := trial.StartSim(filepath.Join(o.repo, "bin", "llmsim"), filepath.Join(dir, "llmsim"),
		"--tls-addr", modelAddress+":443", "--addr", "-")
	if err != nil {
		return nil, err
	}
	m := &models{Sim: s, gate: filepath.Join(dir, "gate"), calls: make(map[string]int)}
	if err := os.MkdirAll(m.gate, 0o755); err != nil {
		return m, err
	}
	ca, err := os.ReadFile(s.CA)
	if err == nil {
		err = os.WriteFile(filepath.Join(m.gate, "ca.pem"), ca, 0o644)
	}
	for name := range round {
		if err == nil {
			err = m.ask(name, 0)
		}
	}
	return m, err
}

// ask lets a program make n more calls.
func (m *models) ask(name string, n int) error {
	m.calls[name] += n
	path := filepath.Join(m.gate, name)
	if err := os.WriteFile(path+".new", []byte(strconv.Itoa(m.calls[name])+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// asked is how many calls there must be once all programs are done.
func (m *models) asked() int {
	n := m.once
	for _, c := range m.calls {
		n += c
	}
	return n
}

// served waits until every call asked for is in the ledger.
func (m *models) served(ctx context.Context) ([]*sim.Entry, error) {
	var all []*sim.Entry
	err := await(ctx, "the calls", func() (err error) {
		all, err = m.Ledger()
		if err == nil && len(all) < m.asked() {
			err = fmt.Errorf("%d of %d served", len(all), m.asked())
		}
		return err
	})
	return all, err
}

// said returns what the containers of the pods whose name begins with pod printed.
func (n *node) said(namespace, pod, container string) (all []logLine, err error) {
	logs, err := filepath.Glob(filepath.Join(n.dir, "podlogs", namespace+"_"+pod+"*", container, "*.log"))
	for _, path := range logs {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(f)
		f.Close()
		if err != nil {
			return nil, err
		}
		all = append(all, parseLog(string(b))...)
	}
	return all, err
}

// logLine is a line of a container's log.
type logLine struct{ stream, text string }

// parseLog reads the format of the container runtime interface: time, stream, P or F
// (a part of a line, or its end), text.
func parseLog(log string) (all []logLine) {
	parts := make(map[string]string)
	for line := range strings.Lines(log) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(f) < 4 || !strings.HasSuffix(line, "\n") {
			continue
		}
		parts[f[1]] += f[3]
		if f[2] == "F" {
			all = append(all, logLine{f[1], parts[f[1]]})
			delete(parts, f[1])
		}
	}
	return all
}
