package probes

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
)

const realInodesChild = "REAL_INODES_CHILD"

// TestRealInodes: where processes have other numbers than the kernel's, no mapping would
// ever be found, and that is said.
func TestRealInodes(t *testing.T) {
	needRoot(t)
	_, err := newRealInodes()
	if os.Getenv(realInodesChild) != "" {
		if !errors.Is(err, errNoMapping) {
			t.Errorf("in a PID namespace of its own: %v", err)
		}
		return
	}
	if errors.Is(err, ebpf.ErrNotSupported) { // before 5.12; the matrix has it pass from there on
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0], "-test.run=^TestRealInodes$")
	child.Env = append(os.Environ(), realInodesChild+"=1")
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestIdentifyEnded: of a process that has ended nothing is taken for the real inode, as
// the file would be tapped once more by the next one's.
func TestIdentifyEnded(t *testing.T) {
	needRoot(t)
	f := idle()
	var err error
	if f.real, err = newRealInodes(); err != nil {
		t.Fatal(err)
	}
	defer f.real.close()
	m := begin(t, rewritable(t, t.TempDir(), "program"), "x", waits)
	file, err := openMapped("/proc", m)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := f.identify(m, file); err != nil {
		t.Fatal(err)
	}
	process, err := os.FindProcess(int(m.pid))
	if err != nil {
		t.Fatal(err)
	}
	process.Kill()
	process.Wait()
	if real, err := f.identify(m, file); !errors.Is(err, errNoMapping) {
		t.Errorf("%v, %v", real, err)
	}
}
