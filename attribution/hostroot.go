package attribution

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// landlords are programs that run on the machine itself, not in a container of it.
var landlords = []string{"systemd", "kubelet", "containerd", "crio", "dockerd", "k3s-server", "k3s-agent"}

// HostRoot returns where the machine's root folder is to be found. From within a
// container that is the root of the machine's first process, or where that one may
// not be looked at, of a container runtime; else it is the agent's own.
func HostRoot(proc string) string {
	usable := func(pid string) (string, bool) {
		root := filepath.Join(proc, pid, "root")
		_, err := os.Stat(filepath.Join(root, "proc"))
		return root, err == nil
	}
	if root, ok := usable("1"); ok {
		return root
	}
	comms, _ := filepath.Glob(filepath.Join(proc, "[1-9]*", "comm"))
	for _, name := range comms {
		comm, err := os.ReadFile(name)
		if err != nil || !slices.Contains(landlords, strings.TrimSpace(string(comm))) {
			continue
		}
		// A node in a container (kind) has programs of these names too.
		pid := filepath.Base(filepath.Dir(name))
		text, err := os.ReadFile(filepath.Join(proc, pid, "cgroup"))
		if err != nil || locate(parseCgroup(string(text))).container != "" {
			continue
		}
		if root, ok := usable(pid); ok {
			return root
		}
	}
	return "/"
}
