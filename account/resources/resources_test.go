package resources

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/pricing"
)

// machine is a made-up one: its cgroups of either version, its processes.
type machine struct {
	t      *testing.T
	v2     bool
	dir    string
	owners map[uint32]attribution.Owner
}

func newMachine(t *testing.T, v2 bool) *machine {
	m := &machine{t: t, v2: v2, dir: t.TempDir(), owners: map[uint32]attribution.Owner{}}
	if v2 {
		m.write("cgroup/cgroup.controllers", "cpu memory")
	}
	return m
}

func (m *machine) write(name, content string) {
	m.t.Helper()
	file := filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// cgroup states what a cgroup and those below it used since ever, and now.
func (m *machine) cgroup(path string, cpu time.Duration, bytes uint64, pids ...uint32) {
	m.t.Helper()
	procs := strings.Trim(strings.ReplaceAll(fmt.Sprint(pids), " ", "\n"), "[]") + "\n"
	const cache = 1 << 20 // can be taken back
	if m.v2 {
		m.write("cgroup/"+path+"/cpu.stat", fmt.Sprintf("usage_usec %d\nuser_usec 1\n", cpu.Microseconds()))
		if path != "" {
			m.write("cgroup/"+path+"/memory.current", fmt.Sprintln(bytes+cache))
		}
		m.write("cgroup/"+path+"/memory.stat", fmt.Sprintf("anon 5\ninactive_file %d\n", cache))
		m.write("cgroup/"+path+"/cgroup.procs", procs)
		return
	}
	m.write("cgroup/cpuacct/"+path+"/cpuacct.usage", fmt.Sprintln(cpu.Nanoseconds()))
	m.write("cgroup/cpuacct/"+path+"/cgroup.procs", procs)
	m.write("cgroup/memory/"+path+"/memory.usage_in_bytes", fmt.Sprintln(bytes+cache))
	m.write("cgroup/memory/"+path+"/memory.stat", fmt.Sprintf("inactive_file 3\ntotal_inactive_file %d\n", cache))
	m.write("cgroup/memory/"+path+"/cgroup.procs", procs)
}

// process has its interfaces in a network namespace.
func (m *machine) process(pid uint32, namespace string, owner attribution.Owner, moved map[string]uint64) {
	m.t.Helper()
	m.owners[pid] = owner
	dir := fmt.Sprintf("proc/%d/", pid)
	dev := "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes packets\n"
	for name, n := range moved {
		dev += fmt.Sprintf("%6s: %d 1 0 0 0 0 0 0 %d 1 0 0 0 0 0 0\n", name, n-n/4, n/4)
	}
	m.write(dir+"net/dev", dev)
	m.write(dir+"net/route", "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\neth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\ncni0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n")
	link := filepath.Join(m.dir, dir+"ns/net")
	os.MkdirAll(filepath.Dir(link), 0o755)
	os.Remove(link)
	if err := os.Symlink(namespace, link); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) ledger(rates func() pricing.Resources) *Ledger {
	return New(Config{
		Proc: filepath.Join(m.dir, "proc"), Cgroup: filepath.Join(m.dir, "cgroup"), Rates: rates,
		Owner: func(pid uint32) attribution.Owner { return m.owners[pid] },
	})
}

func usd(t *testing.T, s string) pricing.Money {
	t.Helper()
	m, err := pricing.ParseMoney(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestLedger(t *testing.T) {
	for _, v2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("v2=%v", v2), func(t *testing.T) {
			m := newMachine(t, v2)
			const gib = 1 << 30
			web := attribution.Owner{ContainerID: "c1", PodUID: "u1", Graph: "shop", Node: "web", ServiceName: "web", Namespace: "prod", PodName: "web-1"}
			unit := attribution.Owner{Unit: "cron.service", Node: "cron"}
			m.process(1, "net:[1]", attribution.Owner{Executable: "init", Node: "init"}, map[string]uint64{"lo": 1e9, "eth0": 1000, "cni0": 1 << 40})
			m.process(20, "net:[2]", web, map[string]uint64{"lo": 5, "eth0": 100})
			m.process(21, "net:[2]", web, map[string]uint64{"lo": 5, "eth0": 100})
			m.process(30, "net:[1]", unit, nil)
			m.process(40, "net:[1]", attribution.Owner{Executable: "bash", Node: "bash"}, nil)

			m.cgroup("", 100*time.Second, 20*gib, 1)
			m.cgroup("kubepods", 50*time.Second, 9*gib)
			m.cgroup("kubepods/pod1", 50*time.Second, 9*gib)
			m.cgroup("kubepods/pod1/a", 30*time.Second, 4*gib, 20)
			m.cgroup("kubepods/pod1/b", 20*time.Second, 5*gib, 21)
			m.cgroup("kubepods/pod2", 0, 0)
			m.cgroup("system.slice/cron.service", 4*time.Second, gib, 30)
			m.cgroup("session", 6*time.Second, 2*gib, 40)

			rates := pricing.Resources{}
			l := m.ledger(func() pricing.Resources { return rates })
			start := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
			l.look(start)
			rates = pricing.Resources{CPUSecond: usd(t, "0.001"), MemoryGiBHour: usd(t, "0.36"), NetworkGiB: usd(t, "0.5")}
			l.look(start.Add(time.Minute)) // there was nothing to compare with
			if s := l.States(); len(s) != 0 {
				t.Fatalf("%+v", s)
			}

			// Ten seconds later: a pod has come, and what it used is its; one process of the
			// first has gone, and what it used since then is nobody's.
			batch := attribution.Owner{ContainerID: "c2", Node: "batch", Namespace: "prod", PodName: "batch-1"}
			m.process(50, "net:[3]", batch, map[string]uint64{"eth0": 40})
			m.process(1, "net:[1]", attribution.Owner{}, map[string]uint64{"lo": 2e9, "eth0": 2000})
			m.process(20, "net:[2]", web, map[string]uint64{"eth0": 400})
			m.cgroup("", 120*time.Second, 20*gib, 1)
			m.cgroup("kubepods", 64*time.Second, 9*gib)
			m.cgroup("kubepods/pod1", 60*time.Second, 8*gib)
			m.cgroup("kubepods/pod1/a", 35*time.Second, 4*gib, 20)
			for _, root := range []string{"cgroup", "cgroup/cpuacct", "cgroup/memory"} {
				if err := os.RemoveAll(filepath.Join(m.dir, root, "kubepods/pod1/b")); err != nil {
					t.Fatal(err)
				}
			}
			m.cgroup("kubepods/pod3", 3*time.Second, gib, 50)
			m.cgroup("system.slice/cron.service", 5*time.Second, gib, 30)
			m.cgroup("session", 8*time.Second, 2*gib, 40)
			l.look(start.Add(70 * time.Second))

			got := map[Account]State{}
			var sum State
			for _, s := range l.States() {
				sum.CPUSeconds += s.CPUSeconds
				sum.MemoryGiBHours += s.MemoryGiBHours
				sum.NetworkBytes += s.NetworkBytes
				s.used = time.Time{}
				got[s.Account] = s
			}
			want := func(a Account, cpu, gibs float64, network uint64, cpuUSD, memoryUSD string) {
				t.Helper()
				s := got[a]
				near := func(a, b float64) bool { return a-b < 1e-9 && b-a < 1e-9 }
				if !near(s.CPUSeconds, cpu) || !near(s.MemoryGiBHours*3600, gibs*10) || s.NetworkBytes != network ||
					s.CPU != usd(t, cpuUSD) || s.Memory != usd(t, memoryUSD) {
					t.Errorf("%+v: %+v", a, s)
				}
			}
			want(Account{Graph: "shop", Node: "web", Service: "web", Namespace: "prod", Pod: "web-1"}, 5, 4, 300, "0.005", "0.004")
			want(Account{Node: "batch", Namespace: "prod", Pod: "batch-1"}, 3, 1, 40, "0.003", "0.001")
			want(Account{Node: "cron"}, 1, 1, 0, "0.001", "0.001")
			// 20 s of the machine less 9 s of the others; of its 20 GiB (v2's root says nothing
			// of its own) those that are nobody's; 1000 bytes less 340 of the pods.
			all, memory := 20.0, 20.0
			if v2 {
				memory = 12
			}
			nobody := fmt.Sprintf("0.0%02.0f", memory-6)
			want(Account{}, 11, memory-6, 660, "0.011", nobody)
			if len(got) != 4 || sum.CPUSeconds != all || sum.NetworkBytes != 1000 {
				t.Errorf("%d accounts, %v s, %d bytes", len(got), sum.CPUSeconds, sum.NetworkBytes)
			}
			if n, want := got[Account{}].Network, rates.Cost(pricing.Use{Network: 660}).Network; n != want || n.Sign() <= 0 {
				t.Errorf("the network cost %s, want %s", n, want)
			}
		})
	}
}

// A namespace that is out of sight for a moment is not counted from its beginning again.
func TestNamespaceOutOfSight(t *testing.T) {
	m := newMachine(t, true)
	m.process(1, "net:[1]", attribution.Owner{}, map[string]uint64{"eth0": 1 << 20})
	m.process(20, "net:[2]", attribution.Owner{}, map[string]uint64{"eth0": 1000})
	n := newNetwork(filepath.Join(m.dir, "proc"))
	moved := func(pids ...uint32) (bytes uint64) {
		n.look(pids, func(pid uint32, b uint64) {
			if pid != 0 {
				bytes += b
			}
		})
		return bytes
	}
	moved(20)
	if b := moved(); b != 0 {
		t.Errorf("%d bytes", b)
	}
	m.process(20, "net:[2]", attribution.Owner{}, map[string]uint64{"eth0": 1007})
	if b := moved(20); b != 7 {
		t.Errorf("%d bytes, want 7", b)
	}
	for range maxMissed + 1 {
		moved()
	}
	if len(n.before) != 1 {
		t.Errorf("%d namespaces are remembered", len(n.before))
	}
}

func TestAccountsAreBounded(t *testing.T) {
	m := newMachine(t, true)
	l := m.ledger(nil)
	now := time.Now()
	rates := pricing.Resources{CPUSecond: usd(t, "1")}
	for i := range maxAccounts + 50 {
		l.book(map[Account]pricing.Use{{Pod: fmt.Sprint(i)}: {CPU: time.Second}}, rates, now)
	}
	var sum float64
	for _, s := range l.States() {
		sum += s.CPUSeconds
	}
	if n := len(l.States()); n > maxAccounts+1 || sum != maxAccounts+50 {
		t.Errorf("%d accounts, %v s", n, sum)
	}
	l.book(map[Account]pricing.Use{{Pod: "new"}: {CPU: time.Second}}, rates, now.Add(2*idle))
	if n := len(l.States()); n != 1 {
		t.Errorf("%d accounts after an idle hour", n)
	}
}

// TestThisMachine reads the real kernel's files: what a process burns is seen.
func TestThisMachine(t *testing.T) {
	c := attribution.Config{Proc: "/proc"}
	var cpu *tree
	for _, mount := range c.CgroupMounts() {
		if tr := cpuTree(mount); exists(tr.root, "cgroup.procs") {
			cpu = tr
			break
		}
	}
	if cpu == nil {
		t.Skip("no cgroups are mounted here")
	}
	sum := func() (ns uint64) {
		cpu.walk(func(_ uint32, own uint64) { ns += own })
		return ns
	}
	if sum() == 0 {
		t.Fatalf("%s says that nothing was used", cpu.root)
	}
	for begin := time.Now(); time.Since(begin) < 300*time.Millisecond; {
	}
	if ns := sum(); ns < 100e6 || ns > 3600e9 {
		t.Errorf("%v of processors since then", time.Duration(ns))
	}
}
