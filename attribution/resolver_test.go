package attribution

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tollwire/tollwire/flow"
)

const (
	testID  = "4f0fbd8bd0f0a4a84ebd6ebf6a5fc50b3a2f1c86ac3e5c3de8a4d3c3a2b1f0e9"
	testPod = "6a6b1f34-1d9e-4f0e-9f34-0a4c6f0d7c11"
)

// machine is a made-up machine: its /proc, its cgroups and its runtimes' files.
type machine struct {
	t    *testing.T
	root string
}

func newMachine(t *testing.T) *machine {
	m := &machine{t, t.TempDir()}
	m.write("sys/fs/cgroup/cgroup.controllers", "")
	return m
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	full := filepath.Join(m.root, name)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// process puts a process into /proc, started at 1000 ticks, and its cgroup into the
// tree; it returns the cgroup's id.
func (m *machine) process(pid int, exe, args, cgroup string) (flow.Proc, uint64) {
	m.t.Helper()
	dir := "proc/" + strconv.Itoa(pid) + "/"
	m.write(dir+"stat", fmt.Sprintf("%d (%.15s) S 1 %d 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 1000 0 0", pid, filepath.Base(exe), pid))
	m.write(dir+"cgroup", "0::"+cgroup+"\n")
	m.write(dir+"cmdline", strings.ReplaceAll(args, " ", "\x00")+"\x00")
	m.write(dir+"environ", "PATH=/bin\x00")
	os.Remove(filepath.Join(m.root, dir+"exe"))
	if err := os.Symlink(exe, filepath.Join(m.root, dir+"exe")); err != nil {
		m.t.Fatal(err)
	}
	folder := filepath.Join(m.root, "sys/fs/cgroup", cgroup)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		m.t.Fatal(err)
	}
	return flow.Proc{PID: uint32(pid), Start: 1000*nsPerTick + 7}, mustInode(m.t, folder)
}

func (m *machine) exit(p flow.Proc) {
	if err := os.RemoveAll(filepath.Join(m.root, "proc", strconv.Itoa(int(p.PID)))); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) config() Config {
	c := Defaults()
	c.Proc = filepath.Join(m.root, "proc")
	c.HostRoot = m.root
	c.CgroupRoot = filepath.Join(m.root, "sys/fs/cgroup")
	c.Key = []byte("key")
	return c
}

func (m *machine) resolver(change ...func(*Config)) *Resolver {
	m.t.Helper()
	c := m.config()
	for _, f := range change {
		f(&c)
	}
	r, err := New(c)
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

func TestHostProcess(t *testing.T) {
	m := newMachine(t)
	p, id := m.process(100, "/usr/bin/curl", "curl -s https://api", "/system.slice/agent.service")
	r := m.resolver(func(c *Config) {
		c.Rules = []Rule{
			{Name: "by-header", Match: Match{Header: map[string]string{"x-role": "*"}}, Node: "{header.x-role}"},
			{Name: "never", Match: Match{Exe: "wget"}, Node: "no"},
		}
	})
	o := r.Owner(p, id, Evidence{})
	if o.Executable != "curl" || o.Unit != "agent.service" || o.Source != "proc" || !o.Complete {
		t.Errorf("%+v", o)
	}
	if o.Node != "agent" || o.NodeSource != "unit" || o.ServiceName != "agent" || o.Graph != "" {
		t.Errorf("node %q by %q, service %q, graph %q", o.Node, o.NodeSource, o.ServiceName, o.Graph)
	}
	o = r.Owner(p, id, Evidence{Headers: map[string]string{"x-role": "critic"}})
	if o.Node != "critic" || o.NodeSource != "rule:by-header" {
		t.Errorf("node %q by %q", o.Node, o.NodeSource)
	}
	p, id = m.process(101, "/usr/bin/curl", "curl", "/user.slice/user-0.slice/session-1.scope")
	if o := r.Owner(p, id, Evidence{}); o.Node != "curl" || o.NodeSource != "executable" {
		t.Errorf("node %q by %q", o.Node, o.NodeSource)
	}
}

// Of a command line nothing is kept but what the rules that match on it ask for, and a
// rule that comes later is asked as well.
func TestCommand(t *testing.T) {
	m := newMachine(t)
	p, id := m.process(100, "/usr/bin/curl", "curl -H Authorization:Bearer-canary --role=planner", "/")
	q, _ := m.process(101, "/usr/bin/curl", "curl --role=critic", "/")
	r := m.resolver()
	held := func() string {
		r.mu.Lock()
		defer r.mu.Unlock()
		e, _ := r.processes.get(p)
		return fmt.Sprintf("%+v", *e.process)
	}
	if o := r.Owner(p, id, Evidence{}); o.Node != "curl" || strings.Contains(held(), "canary") {
		t.Errorf("without a rule: node %q, held %s", o.Node, held())
	}
	c := m.config()
	c.Rules = []Rule{
		{Name: "wget", Match: Match{Command: "wget*"}, Node: "no"},
		{Name: "roles", Match: Match{Exe: "curl", Command: `re:--role=(?P<role>\w+)`}, Node: "{role}"},
	}
	if err := r.Reload(c); err != nil {
		t.Fatal(err)
	}
	if o := r.Owner(p, id, Evidence{}); o.Node != "planner" || o.NodeSource != "rule:roles" || strings.Contains(held(), "canary") {
		t.Errorf("node %q by %q, held %s", o.Node, o.NodeSource, held())
	}
	r.Observe(q, id)
	m.exit(q)
	if o := r.Owner(q, id, Evidence{}); o.Node != "critic" {
		t.Errorf("of a process that has ended: node %q", o.Node)
	}
}

// A process that is gone when its call is over keeps what was read of it.
func TestShortLived(t *testing.T) {
	m := newMachine(t)
	p, id := m.process(100, "/usr/bin/curl", "curl", "/docker/"+testID)
	r := m.resolver()
	r.Observe(p, id)
	m.exit(p)
	if o := r.Owner(p, id, Evidence{}); o.Executable != "curl" || o.ContainerID != testID || o.Source != "proc" {
		t.Errorf("%+v", o)
	}
	// The same after the time for which it would have been believed.
	r.mu.Lock()
	e, _ := r.processes.get(p)
	e.read = time.Now().Add(-time.Hour)
	r.processes.put(p, e)
	r.mu.Unlock()
	if o := r.Owner(p, id, Evidence{}); o.Executable != "curl" || o.Source != "proc" {
		t.Errorf("read again: %+v", o)
	}
}

// A process that nobody could read is known by its cgroup, and says so.
func TestGone(t *testing.T) {
	m := newMachine(t)
	p, id := m.process(100, "/usr/bin/curl", "curl", "/system.slice/docker-"+testID+".scope")
	r := m.resolver()
	m.exit(p)
	o := r.Owner(p, id, Evidence{})
	if o.Source != "cgroup" || o.ContainerID != testID || o.ContainerRuntime != "docker" || o.Executable != "" {
		t.Errorf("%+v", o)
	}
	o = r.Owner(flow.Proc{PID: 5, Start: 1}, 0, Evidence{})
	if o.Source != "" || o.Node != "" || o.NodeSource != "unknown" || !o.Complete {
		t.Errorf("%+v", o)
	}
	// The id now belongs to another process.
	m.process(100, "/usr/bin/wget", "wget", "/system.slice/docker-"+testID+".scope")
	if o := r.Owner(flow.Proc{PID: 100, Start: 900 * nsPerTick}, id, Evidence{}); o.Executable != "" || o.Source != "cgroup" {
		t.Errorf("a reused id was misbooked: %+v", o)
	}
	if s := r.Stats(); s.Cgroup != 2 || s.Unknown != 1 || s.Proc != 0 {
		t.Errorf("%+v", s)
	}
}

// A process may become another program.
func TestExec(t *testing.T) {
	m := newMachine(t)
	p, id := m.process(100, "/bin/sh", "sh -c x", "/")
	r := m.resolver()
	r.Observe(p, id)
	m.process(100, "/usr/bin/curl", "curl", "/")
	if o := r.Owner(p, id, Evidence{}); o.Executable != "sh" {
		t.Errorf("read again at once: %q", o.Executable)
	}
	r.mu.Lock()
	e, _ := r.processes.get(p)
	e.read = time.Now().Add(-reread)
	r.processes.put(p, e)
	r.mu.Unlock()
	if o := r.Owner(p, id, Evidence{}); o.Executable != "curl" {
		t.Errorf("executable %q, want curl", o.Executable)
	}
}

// Every runtime's own file names its containers.
func TestContainerFiles(t *testing.T) {
	oci := func(kv ...string) string {
		var b strings.Builder
		for i := 0; i < len(kv); i += 2 {
			fmt.Fprintf(&b, `%q:%q,`, kv[i], kv[i+1])
		}
		return `{"ociVersion":"1.0.2","annotations":{` + strings.TrimSuffix(b.String(), ",") + `},"process":{}}`
	}
	cri := oci("io.kubernetes.cri.container-name", "app", "io.kubernetes.cri.sandbox-name", "web-0",
		"io.kubernetes.cri.sandbox-namespace", "prod", "io.kubernetes.cri.sandbox-uid", testPod)
	crio := oci("io.kubernetes.container.name", "app", "io.kubernetes.pod.name", "web-0",
		"io.kubernetes.pod.namespace", "prod", "io.kubernetes.pod.uid", testPod)
	docker := `{"ID":"` + testID + `","Name":"/web-1","Config":{"Labels":{"com.docker.compose.project":"shop",` +
		`"com.docker.compose.service":"web","tollwire.io/node":"front"}}}`
	for _, c := range []struct {
		file, text string
		want       Owner
		source     string
	}{
		{"run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json", cri,
			Owner{ContainerRuntime: "containerd", ContainerName: "app", PodName: "web-0", Namespace: "prod", PodUID: testPod, Node: "app"}, "container"},
		{"run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json", cri,
			Owner{ContainerRuntime: "containerd", ContainerName: "app", PodName: "web-0", Namespace: "prod", PodUID: testPod, Node: "app"}, "container"},
		{"var/lib/containers/storage/overlay-containers/ID/userdata/config.json", crio,
			Owner{ContainerRuntime: "cri-o", ContainerName: "app", PodName: "web-0", Namespace: "prod", PodUID: testPod, Node: "app"}, "container"},
		{"run/containerd/io.containerd.runtime.v2.task/default/ID/config.json", oci("nerdctl/name", "web"),
			Owner{ContainerRuntime: "containerd", RuntimeName: "web", Node: "web"}, "container"},
		{"var/lib/docker/containers/ID/config.v2.json", docker,
			Owner{ContainerRuntime: "docker", RuntimeName: "web", Graph: "shop", Node: "front"}, "label"},
		{"var/lib/docker/containers/ID/config.v2.json", `{"Name":"/web-1","Config":{}}`,
			Owner{ContainerRuntime: "docker", RuntimeName: "web-1", Node: "web-1"}, "container"},
		{"var/lib/containers/storage/overlay-containers/ID/userdata/config.json", oci("io.container.manager", "libpod"),
			Owner{ContainerRuntime: "podman", RuntimeName: "sleepy", Node: "sleepy"}, "container"},
		{"var/lib/docker/containers/ID/config.v2.json", `{"Name":`, Owner{Node: "python3.11"}, "executable"},
		{"elsewhere", "", Owner{Node: "python3.11"}, "executable"},
	} {
		t.Run(c.file, func(t *testing.T) {
			m := newMachine(t)
			m.write(strings.ReplaceAll(c.file, "ID", testID), c.text)
			m.write("var/lib/containers/storage/overlay-containers/containers.json",
				`[{"id":"x","names":["y"]},{"id":"`+testID+`","names":["sleepy","other"]}]`)
			p, id := m.process(100, "/usr/bin/python3.11", "python3", "/mine/"+testID)
			o := m.resolver().Owner(p, id, Evidence{})
			if o.ContainerRuntime != c.want.ContainerRuntime || o.ContainerName != c.want.ContainerName || o.PodName != c.want.PodName ||
				o.Namespace != c.want.Namespace || o.PodUID != c.want.PodUID || o.RuntimeName != c.want.RuntimeName ||
				o.Graph != c.want.Graph || o.Node != c.want.Node || o.NodeSource != c.source {
				t.Errorf("got %+v", o)
			}
		})
	}
}

// What is remembered is bounded, and what is asked for stays.
func TestRecent(t *testing.T) {
	r := newRecent[int, int](10)
	for i := range 10_000 {
		r.put(i, i)
		if _, ok := r.get(0); !ok {
			t.Fatalf("0 was forgotten after %d", i)
		}
		if n := len(r.young) + len(r.old); n > 20 {
			t.Fatalf("%d entries", n)
		}
	}
	if _, ok := r.get(9_995); !ok {
		t.Error("a new entry was forgotten")
	}
	if _, ok := r.get(5); ok {
		t.Error("an old entry was kept")
	}
}

func BenchmarkOwner(b *testing.B) {
	r, err := New(Defaults())
	if err != nil {
		b.Fatal(err)
	}
	p := flow.Proc{PID: uint32(os.Getpid())}
	ev := Evidence{Headers: map[string]string{"x-tollwire-node": "planner"}}
	for b.Loop() {
		r.Owner(p, 1, ev)
	}
}
