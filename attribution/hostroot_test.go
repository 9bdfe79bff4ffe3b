package attribution

import (
	"os"
	"path/filepath"
	"testing"
)

func TestHostRoot(t *testing.T) {
	m := newMachine(t)
	m.write("host/proc/x", "")
	link := func(pid, target string) {
		t.Helper()
		if err := os.Symlink(filepath.Join(m.root, target), filepath.Join(m.root, "proc", pid, "root")); err != nil {
			t.Fatal(err)
		}
	}
	proc := filepath.Join(m.root, "proc")
	for pid, comm := range map[string]string{"1": "init", "20": "bash", "30": "containerd", "40": "kubelet"} {
		m.write("proc/"+pid+"/comm", comm+"\n")
		m.write("proc/"+pid+"/cgroup", "0::/system.slice\n")
	}
	m.write("proc/30/cgroup", "0::/docker/"+testID+"\n") // of a node in a container
	link("1", "closed")
	link("20", "host")
	link("30", "host")
	if got := HostRoot(proc); got != "/" {
		t.Errorf("nobody's root may be seen, but got %s", got)
	}
	link("40", "host")
	if got, want := HostRoot(proc), filepath.Join(proc, "40/root"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := os.MkdirAll(filepath.Join(m.root, "closed/proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, want := HostRoot(proc), filepath.Join(proc, "1/root"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
