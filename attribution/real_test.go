//go:build linux

package attribution

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tollwire/tollwire/flow"
)

// These tests make the cgroups of every runtime by hand and put a living process into
// them, or run a container by podman. They need root.

// mountOf returns where the hierarchy of such a line of /proc/PID/cgroup is mounted.
func (h hierarchy) mountOf() (string, bool) {
	if h.id == "0" {
		mount := unified("/sys/fs/cgroup")
		return mount, mount != ""
	}
	for _, name := range append([]string{h.controllers, strings.TrimPrefix(h.controllers, "name=")}, strings.Split(h.controllers, ",")...) {
		dir := filepath.Join("/sys/fs/cgroup", name)
		// A v1 hierarchy has tasks, which a folder of v2's has not.
		if _, err := os.Stat(filepath.Join(dir, "tasks")); err == nil {
			return dir, true
		}
	}
	return "", false
}

// rootCgroup is the kernel's id of the root of cgroup v2.
const rootCgroup = 1

// ownCgroup is below which this test's cgroups are, in every hierarchy: beside those of
// this machine's own runtimes.
func ownCgroup() string { return fmt.Sprint("tollwire-test-", os.Getpid()) }

// retry is for what works once the last process is out of a cgroup, a moment after it
// was killed.
func retry(t *testing.T, do func() error) {
	t.Helper()
	err := do()
	for end := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(end); err = do() {
		time.Sleep(5 * time.Millisecond)
	}
	if err != nil {
		t.Error(err)
	}
}

// removeOwn takes them away at the end of the test.
func removeOwn(t *testing.T, mount string) {
	t.Cleanup(func() {
		retry(t, func() (err error) {
			var all []string
			filepath.WalkDir(filepath.Join(mount, ownCgroup()), func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					all = append(all, path)
				}
				return nil
			})
			for _, c := range slices.Backward(all) {
				if rerr := os.Remove(c); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
					err = rerr
				}
			}
			return err
		})
	})
}

// enter makes a cgroup, puts the process into it, and returns the cgroup's id.
func (h hierarchy) enter(t *testing.T, mount string, pid int) uint64 {
	t.Helper()
	removeOwn(t, mount)
	dir := filepath.Join(mount, ownCgroup(), h.path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Fatal(err)
	}
	return mustInode(t, dir)
}

// real returns a Resolver of this machine, without its runtimes' files.
func real(t *testing.T) *Resolver {
	t.Helper()
	c := Defaults()
	c.HostRoot, c.CgroupRoot, c.Environ = t.TempDir(), "/sys/fs/cgroup", false
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// same holds what a Resolver says to a case of testdata/cgroup.txt.
func (o *Owner) same(t *testing.T, source string, want place) {
	t.Helper()
	got := place{container: o.ContainerID, podUID: o.PodUID, runtime: o.ContainerRuntime, unit: o.Unit}
	if o.Source != source || got != want {
		t.Errorf("by %s: %+v, of %s; want by %s: %+v", o.Source, got, o.Cgroup, source, want)
	}
}

// TestRealShapes: a living process in the cgroups of each case, and the same process
// once it is gone and only the kernel's id of its cgroup is left.
func TestRealShapes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make cgroups")
	}
	made, v1, v2 := 0, unified("/sys/fs/cgroup") != "/sys/fs/cgroup", unified("/sys/fs/cgroup") != ""
	for _, c := range cgroupCases(t) {
		if path, one := strings.CutPrefix(strings.TrimSpace(c.text), "0::"); one && !v2 && !strings.Contains(path, "\n") {
			c.text = "4:memory:" + path // where v1 is all there is, runtimes make the same folders there
		}
		all := parseCgroup(c.text)
		lines := slices.DeleteFunc(slices.Clone(all), func(h hierarchy) bool {
			_, mounted := h.mountOf()
			return !mounted || relative(h.path) || strings.Contains(c.text, "(deleted)")
		})
		if len(lines) == 0 || len(lines) < len(all) && locate(lines).container != c.want.container {
			continue // a hierarchy that this machine does not mount, or what no folder's name can be
		}
		made++
		t.Run(c.name, func(t *testing.T) {
			cmd := sleeper(t) // its end comes before that of its cgroup
			p := flow.Proc{PID: uint32(cmd.Process.Pid), Start: startTicks(t, cmd.Process.Pid) * nsPerTick}
			var id uint64
			var left place // of what the id tells
			for _, h := range lines {
				mount, _ := h.mountOf()
				inode := h.enter(t, mount, cmd.Process.Pid)
				if h.id == "0" {
					id, left = inode, placeOf(h.path)
				}
			}
			t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
			o := real(t).Owner(p, id, Evidence{})
			o.same(t, "proc", c.want)
			if o.Executable != "sleep" {
				t.Errorf("executable %q", o.Executable)
			}
			cmd.Process.Kill()
			cmd.Wait()
			if id == 0 { // the kernel says the root of v2, wherever the process was
				o = real(t).Owner(p, rootCgroup, Evidence{})
				o.same(t, "", place{})
				return
			}
			left.path = ""
			o = real(t).Owner(p, id, Evidence{})
			if v1 && left.container == "" && left.podUID == "" {
				o.same(t, "", place{})
			} else {
				o.same(t, "cgroup", left)
			}
		})
	}
	want := 40
	if v1 {
		want = 44
	}
	if made != want {
		t.Errorf("%d of the cases were made; want %d", made, want)
	}
}

// TestRealRemoved: the cgroup of a process that has ended but was not waited for is removed
// under it, which the kernel says in its path.
func TestRealRemoved(t *testing.T) {
	mount := unified("/sys/fs/cgroup")
	if os.Geteuid() != 0 || mount == "" {
		t.Skip("needs root, to make cgroups, and cgroup v2")
	}
	cmd := sleeper(t)
	p := flow.Proc{PID: uint32(cmd.Process.Pid), Start: startTicks(t, cmd.Process.Pid) * nsPerTick}
	h := hierarchy{id: "0", path: "/kubepods/pod" + testPod + "/" + testID}
	h.enter(t, mount, cmd.Process.Pid)
	cmd.Process.Kill()
	folder := filepath.Join(mount, ownCgroup(), h.path)
	retry(t, func() error { return os.Remove(folder) })
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.PID))
	if err != nil || !strings.Contains(string(text), " (deleted)") {
		t.Fatalf("the kernel says %q, %v: the test says nothing", text, err)
	}
	o := real(t).Owner(p, 0, Evidence{})
	o.same(t, "proc", place{container: testID, podUID: testPod})
}

var withPodman = flag.Bool("podman", false, "run a container by podman: needs root, podman and runc, as make test-podman has them")

// TestPodman: a container of podman's, without its socket and without Kubernetes.
func TestPodman(t *testing.T) {
	if !*withPodman {
		t.Skip("make test-podman runs it")
	}
	root, err := os.MkdirTemp("", "podman") // podman wants its folders' names short
	if err != nil {
		t.Fatal(err)
	}
	storage := filepath.Join(root, "var/lib/containers/storage")
	t.Cleanup(func() {
		syscall.Unmount(filepath.Join(storage, "overlay"), 0) // podman makes it a mount of its own
		retry(t, func() error { return os.RemoveAll(root) })
	})
	roots, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	for _, procs := range append(roots, "/sys/fs/cgroup/cgroup.procs") {
		removeOwn(t, filepath.Dir(procs))
	}
	podman := func(args ...string) string {
		t.Helper()
		all := append([]string{"--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--runtime", "runc", "--events-backend", "none",
			"--root", storage, "--runroot", filepath.Join(root, "run/containers/storage"), "--tmpdir", filepath.Join(root, "run/libpod")}, args...)
		out, err := exec.Command("podman", all...).Output()
		if err != nil {
			var e *exec.ExitError
			if errors.As(err, &e) {
				out = e.Stderr
			}
			t.Fatalf("podman %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	// This test's own program is all that is in the container.
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	files := filepath.Join(root, "rootfs")
	if err := errors.Join(os.MkdirAll(files, 0o755), os.WriteFile(filepath.Join(files, "program"), self, 0o755)); err != nil {
		t.Fatal(err)
	}
	// The limits that podman would set are above what some machines let root set.
	id := podman("run", "--detach", "--name", "sleepy", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--network", "none", "--log-driver", "none",
		"--cgroup-parent", "/"+ownCgroup()+"/libpod_parent", "--env", asleep+"=1", "--env", "OTEL_SERVICE_NAME=dozer", "--rootfs", files, "/program")
	t.Cleanup(func() { podman("rm", "--force", "--time", "0", id) })
	pid, err := strconv.Atoi(podman("inspect", "--format", "{{.State.Pid}}", id))
	if err != nil {
		t.Fatal(err)
	}
	c := Defaults()
	c.HostRoot, c.CgroupRoot = root, "/sys/fs/cgroup"
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	p := flow.Proc{PID: uint32(pid), Start: startTicks(t, pid) * nsPerTick}
	o := r.Owner(p, 0, Evidence{})
	o.same(t, "proc", place{container: id, runtime: "podman"})
	if o.RuntimeName != "sleepy" || o.ServiceName != "dozer" || o.Node != "dozer" || o.NodeSource != "service" || o.Executable != "program" {
		t.Errorf("%+v", o)
	}
	t.Logf("%s is %s of podman by %s", o.Executable, o.RuntimeName, o.Cgroup)
}

// asleep in its environment makes this test's program one that sleeps.
const asleep = "TOLLWIRE_TEST_ASLEEP"

func TestMain(m *testing.M) {
	if os.Getenv(asleep) != "" {
		time.Sleep(time.Hour)
	}
	os.Exit(m.Run())
}
