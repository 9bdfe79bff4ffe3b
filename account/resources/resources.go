// Package resources accounts for what the programs of this node use beside models:
// processors, memory and network, by whose they are, at the price book's rates.
package resources

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/pricing"
)

// Config says where to look. Nothing is looked at while no rate is set.
type Config struct {
	Proc   string // the machine's procfs
	Cgroup string // where the machine's cgroups are mounted
	// Owner says whom a process belongs to.
	Owner func(pid uint32) attribution.Owner
	// Rates are those in force.
	Rates func() pricing.Resources
	NoPod bool // pods are not told apart
}

// Account is whose a use is. The zero Account has what is nobody's: the machine's own,
// what cgroups used that were gone at the next look, and whoever found no room.
type Account struct {
	Graph     string `json:"graph,omitempty"`
	Node      string `json:"node,omitempty"`
	Service   string `json:"service,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Pod       string `json:"pod,omitempty"`
}

// State is an account's sums since the agent's start.
type State struct {
	Account
	CPUSeconds     float64       `json:"cpu_seconds"`
	MemoryGiBHours float64       `json:"memory_gib_hours"`
	NetworkBytes   uint64        `json:"network_bytes"`
	CPU            pricing.Money `json:"cpu_usd"`
	Memory         pricing.Money `json:"memory_usd"`
	Network        pricing.Money `json:"network_usd"`
	used           time.Time
}

const (
	every       = 15 * time.Second
	maxAccounts = 1000
	// idle is how long an account without use is kept.
	idle = time.Hour
)

// Ledger sums. It is safe for concurrent use.
type Ledger struct {
	cfg Config

	// Used by look only.
	cpu, memory *tree
	network     *network
	looked      time.Time // zero: there is nothing yet to compare with

	mu       sync.Mutex
	accounts map[Account]*State
}

// New begins with nothing.
func New(c Config) *Ledger {
	return &Ledger{
		cfg: c, cpu: cpuTree(c.Cgroup), memory: memoryTree(c.Cgroup), network: newNetwork(c.Proc),
		accounts: map[Account]*State{},
	}
}

// Run looks until ctx ends.
func (l *Ledger) Run(ctx context.Context) {
	t := time.NewTicker(every)
	defer t.Stop()
	l.look(time.Now())
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			l.look(now)
		}
	}
}

// look books what was used since the look before.
func (l *Ledger) look(now time.Time) {
	rates := l.cfg.Rates()
	if rates == (pricing.Resources{}) {
		l.looked = time.Time{}
		return
	}
	var passed time.Duration
	first := l.looked.IsZero()
	if !first {
		passed = now.Sub(l.looked)
	}
	l.looked = now

	owners := map[uint32]Account{}
	account := func(pid uint32) Account {
		a, known := owners[pid]
		if !known && pid != 0 {
			a = l.account(pid)
			owners[pid] = a
		}
		return a
	}
	used := map[Account]pricing.Use{}
	add := func(a Account, more pricing.Use) {
		u := used[a]
		u.CPU += more.CPU
		u.Memory += more.Memory
		u.Network += more.Network
		used[a] = u
	}
	l.cpu.walk(func(pid uint32, ns uint64) { add(account(pid), pricing.Use{CPU: time.Duration(ns)}) })
	l.memory.walk(func(pid uint32, bytes uint64) {
		add(account(pid), pricing.Use{Memory: uint64(float64(bytes) * passed.Seconds())})
	})
	l.network.look(slices.Sorted(maps.Keys(owners)), func(pid uint32, bytes uint64) {
		add(account(pid), pricing.Use{Network: bytes})
	})
	if !first {
		l.book(used, rates, now)
	}
}

// account returns the account of a process's cgroup. One that is no container and no
// unit holds processes that have nothing in common.
func (l *Ledger) account(pid uint32) (a Account) {
	o := l.cfg.Owner(pid)
	if o.ContainerID == "" && o.PodUID == "" && o.Unit == "" {
		return a
	}
	a = Account{Graph: o.Graph, Node: o.Node, Service: o.ServiceName, Namespace: o.Namespace}
	if !l.cfg.NoPod {
		a.Pod = o.PodName
	}
	return a
}

func (l *Ledger) book(used map[Account]pricing.Use, rates pricing.Resources, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for a, s := range l.accounts {
		if now.Sub(s.used) > idle {
			delete(l.accounts, a)
		}
	}
	for a, u := range used {
		if u == (pricing.Use{}) {
			continue
		}
		s := l.accounts[a]
		if s == nil && len(l.accounts) >= maxAccounts {
			a = Account{}
			s = l.accounts[a]
		}
		if s == nil {
			s = &State{Account: a}
			l.accounts[a] = s
		}
		bill := rates.Cost(u)
		s.CPUSeconds += u.CPU.Seconds()
		s.MemoryGiBHours += float64(u.Memory) / (1 << 30) / time.Hour.Seconds()
		s.NetworkBytes += u.Network
		s.CPU, s.Memory, s.Network = s.CPU.Add(bill.CPU), s.Memory.Add(bill.Memory), s.Network.Add(bill.Network)
		s.used = now
	}
}

// States returns every account, in order.
func (l *Ledger) States() []State {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]State, 0, len(l.accounts))
	for _, s := range l.accounts {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b State) int {
		return cmp.Or(cmp.Compare(a.Graph, b.Graph), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Service, b.Service),
			cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod))
	})
	return out
}
