//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tollwire/tollwire/cmd/llmsim/ledgercheck"
	"github.com/tollwire/tollwire/cmd/llmsim/sim"
	"github.com/tollwire/tollwire/internal/trial"
)

// record is a line of the agent's records.
type record struct {
	ledgercheck.Record
	Pod        string `json:"k8s.pod.name"`
	Namespace  string `json:"k8s.namespace.name"`
	Container  string `json:"k8s.container.name"`
	Service    string `json:"service.name"`
	NodeSource string `json:"tollwire.node.source"`
	Adapter    string `json:"k8s.pod.label.adapter"`
	Server     string `json:"server.address"`
	workload

	agent int // which one wrote it, from 1
}

// connection is one that a program keeps, as one agent sees it.
type connection struct {
	agent                  int
	pod, container, server string
}

// firsts returns the first call that each agent saw on each connection, where programs
// keep theirs.
func firsts(records []*record) map[*record]bool {
	first := make(map[connection]*record)
	for _, r := range records {
		k := connection{r.agent, r.Pod, r.Container, r.Server}
		if f := first[k]; f == nil || r.Time.Before(f.Time) {
			first[k] = r
		}
	}
	all := make(map[*record]bool)
	for _, r := range first {
		all[r] = true
	}
	return all
}

// daemonset is the agent on the node. When it is replaced, what the one before said
// is kept.
type daemonset struct {
	n       *node
	pod     string
	uid     string
	restart int // of the container
	url     string

	records []*record       // of those before
	scrapes []trial.Samples // their last
}

// deploy makes the DaemonSet and waits until its pod is ready.
func deploy(ctx context.Context, n *node, repo string) (*daemonset, error) {
	if err := n.ctr("images", "import", filepath.Join(repo, "bin", "tollwire-image.tar")); err != nil {
		return nil, err
	}
	if _, err := n.kubectl(ctx, "apply", "-k", filepath.Join(repo, "test/cluster/daemonset")); err != nil {
		return nil, err
	}
	d := &daemonset{n: n}
	return d, d.find(ctx)
}

// find waits for the ready pod of the DaemonSet that is not the one known.
func (d *daemonset) find(ctx context.Context) error {
	err := await(ctx, "the agent's pod", func() error {
		out, err := d.n.kubectl(ctx, "-n", "tollwire", "get", "pods", "-l", "app.kubernetes.io/name=tollwire", "-o", "json")
		if err != nil {
			return err
		}
		var list struct {
			Items []struct {
				Metadata struct {
					Name, UID         string
					DeletionTimestamp *time.Time
				}
				Status struct {
					PodIP             string
					ContainerStatuses []struct {
						Ready        bool
						RestartCount int
						State        json.RawMessage
					}
				}
			}
		}
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return err
		}
		for _, p := range list.Items {
			if p.Metadata.DeletionTimestamp != nil || p.Metadata.Name == d.pod || len(p.Status.ContainerStatuses) == 0 {
				continue
			}
			c := p.Status.ContainerStatuses[0]
			if !c.Ready {
				return fmt.Errorf("%s is %s", p.Metadata.Name, c.State)
			}
			d.pod, d.uid, d.restart = p.Metadata.Name, p.Metadata.UID, c.RestartCount
			d.url = "http://" + p.Status.PodIP + ":9464"
			return nil
		}
		return errors.New("there is none")
	})
	if err != nil {
		said, _ := d.n.said("tollwire", "tollwire-", "tollwire")
		for _, l := range said[max(0, len(said)-8):] {
			err = fmt.Errorf("%w\n%s", err, l.text)
		}
	}
	return err
}

// scrape reads the running agent's /metrics.
func (d *daemonset) scrape(ctx context.Context) (trial.Samples, error) {
	return (&trial.Agent{Metrics: d.url}).Scrape(ctx)
}

// fails waits until the API server has failed the agent in such a way, which then knows
// its pods or does not.
func (d *daemonset) fails(ctx context.Context, kind string, synced bool) error {
	return await(ctx, "a failure, "+kind, func() error {
		s, err := d.scrape(ctx)
		if err == nil && (s.Sum("tollwire_kubernetes_failures_total", "kind", kind) == 0 || (s.Sum("tollwire_kubernetes_synced") == 1) != synced) {
			err = fmt.Errorf("there is none, or it is not true that the agent knows its pods: %v", synced)
		}
		return err
	})
}

// list reads one of the lists that the agent serves.
func (d *daemonset) list(ctx context.Context, name string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+"/api/v1/"+name, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

// oneInode holds the agent to one tap on the clients' TLS library: the file is the
// same in every container, though each has an overlay of its own.
func (d *daemonset) oneInode(ctx context.Context, v *verdict) (path string, err error) {
	layers, err := filepath.Glob(filepath.Join(d.n.dir, "containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs"))
	if err != nil {
		return "", err
	}
	inodes := make(map[uint64]bool)
	for _, layer := range layers {
		for _, folder := range []string{"/lib/*", "/usr/lib/*", "/usr/lib", "/lib"} {
			libraries, _ := filepath.Glob(layer + folder + "/libssl.so.*")
			for _, l := range libraries {
				var st unix.Stat_t
				if err := unix.Stat(l, &st); err != nil {
					return "", err
				}
				inodes[st.Ino] = true
				path = strings.TrimPrefix(l, layer)
			}
		}
	}
	if len(inodes) != 1 {
		return "", fmt.Errorf("the clients' image has %d files libssl, want 1", len(inodes))
	}
	var attached []struct {
		Path  string
		Inode uint64
	}
	if err := d.list(ctx, "attached", &attached); err != nil {
		return "", err
	}
	taps := 0
	for _, a := range attached {
		if inodes[a.Inode] && filepath.Base(a.Path) == filepath.Base(path) {
			taps++
		}
	}
	if taps != 1 {
		v.problem("%s of the clients' image is tapped %d times, want once", path, taps)
	}
	return path, nil
}

// current returns the records that the running agent has written. The error says so when
// it is another one than the test has started, and what the one before said last.
func (d *daemonset) current() ([]*record, error) {
	log := func(restart int) string {
		return filepath.Join(d.n.dir, "podlogs", "tollwire_"+d.pod+"_"+d.uid, "tollwire", strconv.Itoa(restart)+".log")
	}
	b, err := os.ReadFile(log(d.restart))
	if err != nil {
		return nil, err
	}
	lines := parseLog(string(b))
	if _, err := os.Stat(log(d.restart + 1)); err == nil {
		return nil, fmt.Errorf("the agent has ended by itself and was started again; it said last: %v", lines[max(0, len(lines)-40):])
	}
	var all []*record
	for _, l := range lines {
		if l.stream != "stdout" {
			continue
		}
		r := &record{agent: len(d.scrapes) + 1}
		if err := json.Unmarshal([]byte(l.text), r); err != nil {
			return nil, fmt.Errorf("record %q: %w", l.text, err)
		}
		all = append(all, r)
	}
	return all, nil
}

// said returns the clients' records of all agents so far: those of pods' calls and of
// calls in the ledger. Other programs of this machine call models too, and the agent
// sees them: others counts theirs.
func (d *daemonset) said(ledger []*sim.Entry) (all []*record, others int, err error) {
	served := make(map[string]bool, len(ledger))
	for _, e := range ledger {
		served[e.ID] = true
	}
	now, err := d.current()
	for _, r := range append(d.records[:len(d.records):len(d.records)], now...) {
		switch ours := r.Pod != "" || served[r.ResponseID]; {
		case !ours:
			others++
		case r.Role == "client":
			all = append(all, r)
		}
	}
	return all, others, err
}

// awaitRecords waits until n calls were recorded, then a moment for any too many.
func (d *daemonset) awaitRecords(ctx context.Context, s *trial.Sim, n int) error {
	ledger, err := s.Ledger()
	if err != nil {
		return err
	}
	err = await(ctx, "the records", func() error {
		all, _, err := d.said(ledger)
		if err == nil && len(all) < n {
			err = fmt.Errorf("%d of %d", len(all), n)
		}
		return err
	})
	time.Sleep(time.Second)
	return err
}

// keep remembers what the running agent said, which is about to end.
func (d *daemonset) keep(ctx context.Context) error {
	s, err := d.scrape(ctx)
	if err != nil {
		return err
	}
	now, err := d.current()
	d.records, d.scrapes = append(d.records, now...), append(d.scrapes, s)
	return err
}

// replace deletes the pod; the DaemonSet makes another.
func (d *daemonset) replace(ctx context.Context) error {
	if err := d.keep(ctx); err != nil {
		return err
	}
	if _, err := d.n.kubectl(ctx, "-n", "tollwire", "delete", "pod", d.pod); err != nil {
		return err
	}
	return d.find(ctx)
}

// restartProcess ends the agent's process; kubelet starts the container again, with
// or without an API server.
func (d *daemonset) restartProcess(ctx context.Context) error {
	if err := d.keep(ctx); err != nil {
		return err
	}
	pid, err := d.pid()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("end the agent: %w", err)
	}
	d.restart++
	return await(ctx, "the restarted agent", func() error {
		if again, err := d.pid(); err != nil {
			return err
		} else if again == pid {
			return errors.New("it has not ended")
		}
		resp, err := http.Get(d.url + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz: %s", resp.Status)
		}
		return nil
	})
}

// pid is the agent's process: the one in the pod's cgroup that is called so.
func (d *daemonset) pid() (int, error) {
	comms, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, c := range comms {
		if b, err := os.ReadFile(c); err != nil || strings.TrimSpace(string(b)) != "tollwire" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(filepath.Dir(c), "cgroup"))
		if err == nil && strings.Contains(string(b), d.uid) {
			return strconv.Atoi(filepath.Base(filepath.Dir(c)))
		}
	}
	return 0, errors.New("the agent has no process")
}

// sum adds up a counter over this agent's scrape and the last of those before.
func (d *daemonset) sum(now trial.Samples, name string, labels ...string) float64 {
	total := now.Sum(name, labels...)
	for _, s := range d.scrapes {
		total += s.Sum(name, labels...)
	}
	return total
}

// dropped returns the bytes that the agents say they lost, by source and reason.
func (d *daemonset) dropped(now trial.Samples) map[string]float64 {
	lost := make(map[string]float64)
	for _, s := range append(d.scrapes[:len(d.scrapes):len(d.scrapes)], now) {
		for _, m := range s["tollwire_capture_bytes_total"].GetMetric() {
			label := make(map[string]string)
			for _, l := range m.GetLabel() {
				label[l.GetName()] = l.GetValue()
			}
			if n := m.GetCounter().GetValue(); label["fate"] == "dropped" && n > 0 {
				lost[label["source"]+" "+label["reason"]] += n
			}
		}
	}
	return lost
}
