package resources

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// network reads the bytes that each network namespace moved. A cgroup has no such
// count of its own, so those that share a namespace (the containers of a pod) have one
// together, and those that share the machine's are nobody's.
type network struct {
	proc   string
	before map[string]moved // by namespace
}

// moved is what a namespace had moved when it was last seen.
type moved struct {
	bytes  uint64
	missed int // looks since
}

// maxMissed is after how many looks a namespace is taken for gone. One that is seen for
// the first time counts from its beginning, so none may be forgotten at once.
const maxMissed = 20

func newNetwork(proc string) *network { return &network{proc: proc, before: map[string]moved{}} }

// look calls book with what each namespace of the processes moved since the look
// before, and with a process of it. What the machine's own moved beyond these, much of
// which passed through it, is booked to process 0.
func (n *network) look(pids []uint32, book func(pid uint32, bytes uint64)) {
	now := map[string]moved{}
	machine := n.namespace(1)
	since := func(ns string, pid uint32) uint64 {
		is, was := n.moved(pid), n.before[ns].bytes
		now[ns] = moved{bytes: max(is, was)}
		return now[ns].bytes - was
	}
	var inner uint64
	for _, pid := range pids {
		ns := n.namespace(pid)
		if _, seen := now[ns]; seen || ns == "" || ns == machine {
			continue
		}
		bytes := since(ns, pid)
		inner += bytes
		book(pid, bytes)
	}
	if machine != "" {
		all := since(machine, 1)
		book(0, all-min(inner, all))
	}
	for ns, m := range n.before {
		if _, seen := now[ns]; !seen && m.missed < maxMissed {
			now[ns] = moved{m.bytes, m.missed + 1}
		}
	}
	n.before = now
}

func (n *network) path(pid uint32, name string) string {
	return filepath.Join(n.proc, strconv.FormatUint(uint64(pid), 10), name)
}

// namespace names the network namespace of a process; "" where that may not be seen.
func (n *network) namespace(pid uint32) string {
	s, _ := os.Readlink(n.path(pid, "ns/net"))
	return s
}

// moved sums the bytes received and sent by the interfaces that have a default route,
// so that what goes through a bridge or to a neighbour's end of a pair counts once.
// Where none has, all but the loopback's count.
func (n *network) moved(pid uint32) uint64 {
	uplinks := n.uplinks(pid)
	b, err := os.ReadFile(n.path(pid, "net/dev"))
	if err != nil {
		return 0
	}
	var sum uint64
	for line := range strings.Lines(string(b)) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		counts := strings.Fields(rest)
		if !ok || name == "lo" || len(counts) < 9 || len(uplinks) > 0 && !uplinks[name] {
			continue
		}
		received, _ := strconv.ParseUint(counts[0], 10, 64)
		sent, _ := strconv.ParseUint(counts[8], 10, 64)
		sum += received + sent
	}
	return sum
}

func (n *network) uplinks(pid uint32) map[string]bool {
	found := map[string]bool{}
	v4, _ := os.ReadFile(n.path(pid, "net/route"))
	for line := range strings.Lines(string(v4)) { // Iface Destination Gateway Flags RefCnt Use Metric Mask …
		if f := strings.Fields(line); len(f) > 7 && f[1] == "00000000" && f[7] == "00000000" {
			found[f[0]] = true
		}
	}
	v6, _ := os.ReadFile(n.path(pid, "net/ipv6_route"))
	for line := range strings.Lines(string(v6)) { // destination, its length, …, interface
		if f := strings.Fields(line); len(f) > 9 && strings.Trim(f[0], "0") == "" && f[1] == "00" && f[9] != "lo" {
			found[f[9]] = true
		}
	}
	return found
}
